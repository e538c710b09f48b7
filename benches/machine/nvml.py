"""The GPU's own figures, from the driver's library NVML through ctypes.

No package is needed: the library comes with every driver, and the few functions used here have kept their form for ten
years. A function that a driver lacks, or a value that a GPU does not have, is left out.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

from .readings import Reading

LIBRARY = "libnvidia-ml.so.1"

# Numbers of nvml.h.
_SM_CLOCK, _MEMORY_CLOCK, _CORE_TEMPERATURE, _TOO_SMALL = 1, 2, 0, 7
_SLOW_DOWNS = {
    0x08: "hardware slowdown",
    0x20: "thermal slowdown by the driver",
    0x40: "thermal slowdown by the hardware",
    0x80: "power brake",
}
_POWER_CAP = 0x04


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class Nvml:
    """A `Source`: one GPU.

    Attributes:
        power_capped: its power limit held a clock down at some reading.
    """

    def __init__(self, library: Any, device: ctypes.c_void_p) -> None:
        self._library, self._device = library, device
        self.power_capped = False

    @classmethod
    def open(cls, pci: str, library: Any = None) -> Nvml | None:
        """The GPU at a place on the bus ("0000:19:00.0"), or the only one; None without the library or that GPU."""
        try:
            library = library or ctypes.CDLL(LIBRARY)
        except OSError:
            return None
        if library.nvmlInit_v2() != 0:
            return None
        device, count = ctypes.c_void_p(), ctypes.c_uint()
        if pci and library.nvmlDeviceGetHandleByPciBusId_v2(pci.encode(), ctypes.byref(device)) == 0:
            return cls(library, device)
        library.nvmlDeviceGetCount_v2(ctypes.byref(count))
        if count.value == 1 and library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)) == 0:
            return cls(library, device)
        return None

    def readings(self) -> Iterator[Reading]:
        """See `Source`."""
        values = (
            ("clock_mhz", "gpu", self._number("nvmlDeviceGetClockInfo", _SM_CLOCK), 1),
            ("clock_mhz", "gpu memory", self._number("nvmlDeviceGetClockInfo", _MEMORY_CLOCK), 1),
            ("temperature_c", "gpu", self._number("nvmlDeviceGetTemperature", _CORE_TEMPERATURE), 1),
            ("power_w", "gpu", self._number("nvmlDeviceGetPowerUsage"), 1000),
            ("utilization_percent", "gpu", self.utilization(), 1),
        )
        yield from (Reading(kind, of, value / unit) for kind, of, value, unit in values if value is not None)

    def throttles(self) -> Iterator[str]:
        """See `Source`. The power limit is no fault of a measurement; it sets `power_capped`."""
        reasons = self._number("nvmlDeviceGetCurrentClocksThrottleReasons", kind=ctypes.c_ulonglong) or 0
        self.power_capped |= bool(reasons & _POWER_CAP)
        yield from (f"GPU: {name}" for bit, name in _SLOW_DOWNS.items() if reasons & bit)

    def utilization(self) -> int | None:
        """Share of the last moments, in percent, in which the GPU ran something."""
        found = self._asked("nvmlDeviceGetUtilizationRates", (), _Utilization())
        return None if found is None else int(found.gpu)

    def facts(self) -> dict[str, Any]:
        """What does not change during a run: power limit in W, largest clock in MHz, programs that hold the GPU."""
        limit_mw = self._number("nvmlDeviceGetEnforcedPowerLimit")
        return {
            "power_limit_w": None if limit_mw is None else limit_mw / 1000,
            "largest_clock_mhz": self._number("nvmlDeviceGetMaxClockInfo", _SM_CLOCK),
            "programs": self._programs(),
        }

    def _programs(self) -> int | None:
        """How many programs compute on it; asked with room for none, the library answers with the number."""
        function, count = getattr(self._library, "nvmlDeviceGetComputeRunningProcesses_v3", None), ctypes.c_uint(0)
        if function is None or function(self._device, ctypes.byref(count), None) not in (0, _TOO_SMALL):
            return None
        return count.value

    def _number(self, name: str, *args: int, kind: Any = ctypes.c_uint) -> int | None:
        found = self._asked(name, args, kind())
        return None if found is None else int(found.value)

    def _asked(self, name: str, args: tuple[int, ...], result: Any) -> Any:
        """`result`, filled in by the function; None if there is no such function or it refuses."""
        function = getattr(self._library, name, None)
        if function is None or function(self._device, *args, ctypes.byref(result)) != 0:
            return None
        return result
