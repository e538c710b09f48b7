from pathlib import Path

import numpy as np
import pytest

from edgeseg.backends.cuda.fake import FakeCuda
from edgeseg.benches.machine import DeviceMemory, HostMemory

MEBIBYTE = 2**20


@pytest.fixture
def process(tmp_path):
    (tmp_path / "status").write_text("Name:\tpython\nVmPeak:\t  9999 kB\nVmHWM:\t   2048 kB\nVmRSS:\t   1024 kB\n")
    return tmp_path


def test_peak_is_the_high_water_mark(process):
    assert HostMemory(process).peak_bytes() == 2 * MEBIBYTE


def test_reset_asks_the_kernel_and_says_what_the_peak_covers(process):
    memory = HostMemory(process)
    assert memory.since == "the start of the program"
    memory.reset("the end of the warm-up")
    assert (process / "clear_refs").read_text() == "5"
    assert memory.since == "the end of the warm-up"


def test_refused_reset_does_not_pretend(process):
    (process / "clear_refs").mkdir()
    memory = HostMemory(process)
    memory.reset("the end of the warm-up")
    assert memory.since == "the start of the program"


def test_kernel_that_does_not_say(tmp_path):
    assert HostMemory(tmp_path).peak_bytes() is None


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel has no clear_refs")
def test_reset_forgets_an_earlier_peak():
    memory = HostMemory()
    big = np.ones(256 * MEBIBYTE, np.uint8)
    with_it = memory.peak_bytes()
    del big
    memory.reset("now")
    after = memory.peak_bytes()
    assert with_it is not None
    assert after is not None
    assert memory.since == "now"
    assert after < with_it - 200 * MEBIBYTE


def test_device_memory_is_what_was_taken_since():
    cuda = FakeCuda()
    with cuda.current():
        cuda.allocate(1000)
    memory = DeviceMemory(cuda)
    assert memory.taken_bytes() == 0
    with cuda.current():
        pointer = cuda.allocate(5000)
    assert memory.taken_bytes() == 5000
    with cuda.current():
        cuda.free(pointer)
        cuda.free(next(iter(cuda.memory)))
    assert memory.taken_bytes() == 0
