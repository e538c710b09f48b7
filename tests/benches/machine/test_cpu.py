import os
import time

import pytest

from edgeseg.benches.machine.cpu import CpuTime, cpu_time, cpu_use
from tests.benches.machine.trees import CPUS, LAPTOP, write

TICK = 1 / os.sysconf("SC_CLK_TCK")


def test_counters_are_those_of_the_allowed_cpus(tmp_path):
    found = cpu_time(write(tmp_path, LAPTOP), CPUS)
    assert found.busy_s == pytest.approx(500 * TICK)
    assert found.stolen_s == pytest.approx(50 * TICK)
    assert cpu_time(tmp_path, [1]).busy_s == pytest.approx(300 * TICK)


def test_use_is_what_others_did_beside_this_process():
    before, after = CpuTime(10, 100, 5, 20), CpuTime(14, 107, 6, 23)
    use = cpu_use(before, after)
    assert (use.own, use.others, use.stolen) == (0.75, 1.0, 0.25)


def test_kernel_that_does_not_say(tmp_path):
    found = cpu_time(tmp_path, CPUS)
    assert (found.busy_s, found.stolen_s) == (None, None)
    assert cpu_use(found, found).others is None


def test_rounding_never_makes_others_negative():
    assert cpu_use(CpuTime(0, 0, 0, 0), CpuTime(1, 0.99, 0, 1.0)).others == 0


def test_own_time_is_seen_on_this_machine():
    before = cpu_time()
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    use = cpu_use(before, cpu_time())
    assert use.own > 0.001
