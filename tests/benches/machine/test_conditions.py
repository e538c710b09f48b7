import json

import pytest

from edgeseg.benches.machine import Machine, Range
from tests.benches.machine.trees import LAPTOP, ORIN, write


@pytest.fixture
def laptop(tmp_path, monkeypatch):
    monkeypatch.setattr("edgeseg.benches.machine.sysfs.allowed_cpus", lambda: [0, 1])
    monkeypatch.setattr("edgeseg.benches.machine.cpu.allowed_cpus", lambda: [0, 1])
    return write(tmp_path, LAPTOP)


class Gpu:
    """What `Nvml` is to a machine."""

    power_capped = True

    def readings(self):
        return []

    def throttles(self):
        return ["GPU: power brake"]

    def utilization(self):
        return 33

    def facts(self):
        return {"programs": 1}


def test_conditions_are_complete_once_the_measurement_is_over(laptop):
    machine = Machine(root=laptop)
    with machine.watch() as found:
        (laptop / "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count").write_text("9")
        assert found.ranges == ()
    assert (found.power_mode, found.governors) == ("balanced", ("powersave",))
    assert Range("clock_mhz", "cpu", 3100, 3100, 3100) in found.ranges
    assert found.slow_downs == {"CPU thermal throttling": 6}
    assert found.cpu.others is not None
    assert found.gpu is None


def test_gpu_is_asked_before_anything_runs_on_it(laptop):
    with Machine(Gpu(), laptop).watch() as found:
        pass
    assert found.gpu_busy_percent == 33
    assert found.throttles == ("GPU: power brake",)
    assert found.power_capped
    assert found.describe()["gpu"] == {"programs": 1, "busy_before_percent": 33}


def test_description_is_plain_json(tmp_path):
    with Machine(root=write(tmp_path, ORIN)).watch() as found:
        pass
    body = json.loads(json.dumps(found.describe(), allow_nan=False))
    assert body["power_mode"] == "MAXN_SUPER"
    rails = [row for row in body["readings"] if row["kind"] == "power_w"]
    assert rails[0] == {"kind": "power_w", "of": "VDD_IN", "least": 12.0, "mean": 12.0, "most": 12.0}
    assert body["throttles"] == ["the cooling device gpu-throttle-alert is on"]
