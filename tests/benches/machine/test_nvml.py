"""NVML through ctypes, against a stand-in of the library that is compiled here: the calls meet real C."""

import ctypes
import shutil
import subprocess

import pytest

from edgeseg.benches.machine import Nvml
from edgeseg.benches.machine.readings import Reading

SOURCE = r"""
#include <string.h>
typedef struct { int number; } Device;
typedef struct { unsigned int gpu, memory; } Utilization;
static Device devices[2] = {{0}, {1}};
int init_result = 0, cards = 1;
unsigned long long reasons = 0;
int nvmlInit_v2(void) { return init_result; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = cards; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, Device **device) { *device = &devices[index]; return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *id, Device **device) {
    if (strcmp(id, "0000:19:00.0")) return 6;
    *device = &devices[1];
    return 0;
}
int nvmlDeviceGetClockInfo(Device *device, int type, unsigned int *mhz) {
    if (type != 1 && type != 2) return 2;
    *mhz = type == 1 ? 1980 - device->number : 2619;
    return 0;
}
int nvmlDeviceGetMaxClockInfo(Device *device, int type, unsigned int *mhz) { *mhz = 1980; return type == 1 ? 0 : 2; }
int nvmlDeviceGetTemperature(Device *device, int sensor, unsigned int *celsius) { *celsius = 41; return sensor; }
int nvmlDeviceGetPowerUsage(Device *device, unsigned int *milliwatts) { *milliwatts = 345678; return 0; }
int nvmlDeviceGetUtilizationRates(Device *device, Utilization *rates) { rates->gpu = 97; rates->memory = 5; return 0; }
int nvmlDeviceGetEnforcedPowerLimit(Device *device, unsigned int *milliwatts) { return 3; }
int nvmlDeviceGetCurrentClocksThrottleReasons(Device *device, unsigned long long *out) { *out = reasons; return 0; }
int nvmlDeviceGetComputeRunningProcesses_v3(Device *device, unsigned int *count, void *infos) {
    int room = *count;
    *count = 2;
    return room < 2 ? 7 : 0;
}
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("nvml")
    (folder / "nvml.c").write_text(SOURCE)
    target = folder / "libnvidia-ml.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(target), str(folder / "nvml.c")], check=True)
    return target


@pytest.fixture
def library(compiled):
    found = ctypes.CDLL(str(compiled))
    for name, value in (("init_result", 0), ("cards", 1)):
        ctypes.c_int.in_dll(found, name).value = value
    ctypes.c_ulonglong.in_dll(found, "reasons").value = 0
    return found


def test_readings_in_their_units(library):
    assert list(Nvml.open("", library).readings()) == [
        Reading("clock_mhz", "gpu", 1980),
        Reading("clock_mhz", "gpu memory", 2619),
        Reading("temperature_c", "gpu", 41),
        Reading("power_w", "gpu", 345.678),
        Reading("utilization_percent", "gpu", 97),
    ]


def test_gpu_is_found_by_its_place_on_the_bus(library):
    ctypes.c_int.in_dll(library, "cards").value = 2
    found = list(Nvml.open("0000:19:00.0", library).readings())
    assert found[0] == Reading("clock_mhz", "gpu", 1979)


def test_unknown_gpu_among_several_is_not_guessed(library):
    ctypes.c_int.in_dll(library, "cards").value = 2
    assert Nvml.open("0000:99:00.0", library) is None
    assert Nvml.open("", library) is None


def test_facts_leave_out_what_the_gpu_does_not_have(library):
    facts = Nvml.open("", library).facts()
    assert facts == {"power_limit_w": None, "largest_clock_mhz": 1980, "programs": 2}


@pytest.mark.parametrize(
    ("bits", "expected", "capped"),
    [
        (0x0, [], False),
        (0x1, [], False),  # idle
        (0x4, [], True),
        (0x20, ["GPU: thermal slowdown by the driver"], False),
        (0x48, ["GPU: hardware slowdown", "GPU: thermal slowdown by the hardware"], False),
        (0x84, ["GPU: power brake"], True),
    ],
)
def test_what_holds_the_clock_down(library, bits, expected, capped):
    ctypes.c_ulonglong.in_dll(library, "reasons").value = bits
    gpu = Nvml.open("", library)
    assert list(gpu.throttles()) == expected
    assert gpu.power_capped is capped


def test_driver_that_does_not_start(library):
    ctypes.c_int.in_dll(library, "init_result").value = 9
    assert Nvml.open("", library) is None


def test_machine_without_the_library(monkeypatch):
    monkeypatch.setattr("edgeseg.benches.machine.nvml.LIBRARY", "libno-such-driver.so.1")
    assert Nvml.open("") is None


def test_function_that_an_old_driver_lacks_is_left_out(library):
    class Old:
        def __getattr__(self, name):
            if name == "nvmlDeviceGetUtilizationRates":
                raise AttributeError(name)
            return getattr(library, name)

    gpu = Nvml.open("", Old())
    assert gpu.utilization() is None
    assert len(list(gpu.readings())) == 4
