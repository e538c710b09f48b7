from typing import Any

import pytest

from edgeseg.benches.latency import WarmUp, judge
from edgeseg.benches.machine import Conditions, Range
from edgeseg.benches.machine.cpu import CpuUse

WARM = WarmUp(7, 2.0, True)
STEADY = {"end to end": [100.0, 101.0] * 20}
QUIET = {"governors": ("performance",), "cores": 4, "cpu": CpuUse(2.0, 0.1, 0.0)}


def verdict(totals=STEADY, warmup=WARM, on_gpu=False, **conditions):
    return judge(totals, warmup, Conditions(**(QUIET | conditions)), on_gpu=on_gpu)


def clock(of, least, most):
    return (Range("clock_mhz", of, least, (least + most) / 2, most),)


def test_steady_latency_on_a_quiet_machine_is_trusted():
    found = verdict()
    assert found.trusted
    assert found.line == "trusted"
    assert found.notes == ("of 40 runs, p99 is little else than the slowest",)
    assert verdict({"end to end": [100.0, 101.0] * 50}).notes == ()


RUNS: dict[str, Any] = {
    "too few runs (9,": {"totals": {"end to end": [100.0] * 9}},
    "not settled after 200 runs": {"warmup": WarmUp(200, 60.0, False)},
    "end to end: the spread is too wide (the middle half of the runs covers 30": {
        "totals": {"end to end": [85.0, 100.0, 115.0] * 13}
    },
    "one run in twenty takes more than": {"totals": {"end to end": [100.0] * 36 + [160.0] * 4}},
    "drifted by +8%": {"totals": {"end to end": [100.0] * 10 + [104.0] * 10 + [108.0] * 10}},
    "without read and write: the latency drifted by -7%": {
        "totals": {**STEADY, "without read and write": [100.0] * 10 + [93.0] * 10}
    },
}
MACHINE: dict[str, Any] = {
    "the CPU's clock moved between 2000 and 3000 MHz": {"ranges": clock("cpu", 2000, 3000)},
    "clocks were held down (GPU: power brake)": {"throttles": ("GPU: power brake",)},
    "CPU thermal throttling went up by 3": {"slow_downs": {"CPU thermal throttling": 3}},
    "frequency governor is powersave, not performance": {"governors": ("powersave",)},
    "other programs used 0.5 of the 4 CPUs": {"cpu": CpuUse(2.0, 0.5, 0.0)},
    "the load average was 1.5": {"cpu": CpuUse(2.0, None, None), "load_average": 1.5},
    "the hypervisor took 10% of the CPUs away": {"cpu": CpuUse(2.0, 0.0, 0.4)},
}
GPU: dict[str, Any] = {
    "the GPU's clock moved between 1200 and 1980 MHz": {"ranges": clock("gpu", 1200, 1980)},
    "the GPU was 40 % busy before": {"gpu_busy_percent": 40},
    "other programs used 0.5 of the 4 CPUs": {"cpu": CpuUse(2.0, 0.5, 0.0)},
}


@pytest.mark.parametrize("text", [*RUNS, *MACHINE])
def test_each_reason_fires_alone_and_says_why(text):
    found = verdict(**(RUNS.get(text) or MACHINE[text]))
    assert not found.trusted
    assert len(found.reasons) == 1
    assert text in found.line
    assert found.line.startswith("not to be trusted because ")


@pytest.mark.parametrize("text", GPU)
def test_reasons_of_a_gpu(text):
    found = verdict(on_gpu=True, **GPU[text])
    assert len(found.reasons) == 1
    assert text in found.reasons[0]


@pytest.mark.parametrize(
    "conditions",
    [
        {"ranges": clock("cpu", 1000, 3000)},
        {"ranges": clock("gpu", 1960, 1980)},
        {"governors": ("schedutil",)},
        {"power_capped": True},
        {"gpu": {"programs": 2}},
        {"gpu_busy_percent": 3},
    ],
)
def test_what_does_not_change_a_gpus_median_is_no_reason(conditions):
    assert verdict(on_gpu=True, **conditions).trusted


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("the GPU's power limit held its clock down", {"power_capped": True}),
        ("frequency governor is schedutil", {"governors": ("schedutil",)}),
        ("2 programs hold the GPU", {"gpu": {"programs": 2}}),
    ],
)
def test_it_is_noted(text, conditions):
    assert any(text in note for note in verdict(on_gpu=True, **conditions).notes)


def test_memory_clock_and_small_steps_do_not_count():
    assert verdict(ranges=(*clock("cpu", 2900, 3000), *clock("gpu memory", 400, 2600))).trusted


def test_few_runs_cannot_drift():
    assert verdict({"end to end": [100.0] * 6 + [106.0] * 6}).trusted
