"""Peak memory: of this process on the host, and of the GPU.

The host's figure is VmHWM, the largest resident set of this program. `getrusage`'s ru_maxrss is not used: it begins
with that of the program that started this one.
"""

from __future__ import annotations

import re
from pathlib import Path

from edgeseg.backends.cuda.base import Cuda

from .readings import text

_RESET_PEAK = "5"  # what the kernel's documentation of clear_refs gives for VmHWM


class HostMemory:
    """Peak resident memory since `reset`, or since the program's start where the kernel refuses that.

    Attributes:
        since: what the peak covers, in words.
    """

    def __init__(self, process: Path = Path("/proc/self")) -> None:
        self._process = process
        self.since = "the start of the program"

    def reset(self, since: str) -> None:
        """Forget the peak so far; `since` describes this moment."""
        try:
            (self._process / "clear_refs").write_text(_RESET_PEAK)
        except OSError:
            return  # `since` keeps saying what the peak covers
        self.since = since

    def peak_bytes(self) -> int | None:
        """The peak; None where the kernel does not say."""
        found = re.search(r"^VmHWM:\s*(\d+) kB$", text(self._process / "status") or "", re.MULTILINE)
        return int(found[1]) * 1024 if found else None


class DeviceMemory:
    """How much more of a GPU's memory is taken than when this was made. Nothing here is given back between two runs.

    Args:
        cuda: the opened device; used in the thread that opened it.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._before = self._free()

    def taken_bytes(self) -> int:
        """Taken by now, by all programs, since this was made. Never negative."""
        return max(self._before - self._free(), 0)

    def _free(self) -> int:
        with self._cuda.current():
            return self._cuda.free_bytes()
