"""Flushes denormal numbers to zero in the calling thread, for as long as an engine runs in it.

onnxruntime's own option reaches its thread pools, but of calling threads only the one that opens the first session of
the process; and there it stays, for numpy too. A calling thread does its share of every run, and denormal numbers slow
a CPU down a hundredfold. C's floating-point environment holds the switch, at a place that depends on the processor.
"""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Machine → (index of the 32-bit word in fenv_t, bits to set): x86 MXCSR (flush results, read as zero), ARM FPCR (FZ).
_SWITCHES = {"x86_64": (7, 0x8040), "aarch64": (0, 1 << 24)}
_Environment = ctypes.c_uint32 * 16  # fenv_t takes 8 of these on x86-64 and 2 on ARM


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Flush denormal numbers in this thread inside the block; does nothing on a machine whose switch is not known."""
    library, switch = _library(), _SWITCHES.get(platform.machine())
    if library is None or switch is None:
        yield
        return
    before, word = _Environment(), switch[0]
    library.fegetenv(ctypes.byref(before))
    flushing = _Environment(*before)
    flushing[word] |= switch[1]
    library.fesetenv(ctypes.byref(flushing))
    try:
        yield
    finally:
        library.fesetenv(ctypes.byref(before))


@functools.cache
def _library() -> Any:
    """Linux's C library with `fegetenv`, or None: elsewhere fenv_t may look different."""
    if platform.system() != "Linux":
        return None
    for name in (None, "libm.so.6"):
        try:
            library = ctypes.CDLL(name)
            library.fegetenv  # noqa: B018  # looking the symbol up is the test
        except (OSError, AttributeError):
            continue
        return library
    return None
