"""This machine's roofline: the fastest matrix product and the fastest copy that it does, measured here and now.

On a CPU through numpy: one product of float32 matrices in its BLAS, and a copy of large arrays by one thread per core.
On a GPU through the backend that runs the engines (`probe.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from edgeseg.backends.host import physical_cores

SIDE = 2048
"""Of the square matrices: their product is limited by arithmetic on every CPU, and takes well under a second."""

COPY_BYTES = 2**28
"""Larger than any cache that it should not measure."""

LEAST_TIMES, LEAST_S = 5, 1.0


@dataclass(frozen=True)
class Roofline:
    """What the machine can do at most.

    Attributes:
        macs_per_s: multiply-accumulates of the matrix product; two floating-point operations each.
        bytes_per_s: of the copy, read and written bytes added.
        dtype: of the product's matrices.
        cores: CPUs that the product kept busy; None on a GPU.
        how: what was measured, in words.
    """

    macs_per_s: float
    bytes_per_s: float
    dtype: str
    cores: float | None
    how: str

    def least_ms(self, macs: int, size_bytes: int) -> float:
        """The time below which nothing that does so much can come on this machine."""
        return 1e3 * max(macs / self.macs_per_s, size_bytes / self.bytes_per_s)

    def bound(self, macs: int, size_bytes: int) -> str:
        """What sets that time: "arithmetic" or "memory"."""
        return "arithmetic" if macs / self.macs_per_s >= size_bytes / self.bytes_per_s else "memory"


def host_roofline(side: int = SIDE, copy_bytes: int = COPY_BYTES) -> Roofline:
    """Measure the CPU."""
    product_s, cores = _product(side)
    copy_s = _copy(copy_bytes)
    how = f"numpy: float32 product of {side}x{side} matrices; copy of {copy_bytes / 2**20:.0f} MiB by a thread per core"
    return Roofline(side**3 / product_s, 2 * copy_bytes / copy_s, "float32", round(cores, 2), how)


def fastest_s(once: Callable[[], object]) -> float:
    """The shortest of at least five runs and one second; the first is not counted."""
    once()
    times_s: list[float] = []
    while len(times_s) < LEAST_TIMES or sum(times_s) < LEAST_S:
        start_s = time.perf_counter()
        once()
        times_s.append(time.perf_counter() - start_s)
    return min(times_s)


def _product(side: int) -> tuple[float, float]:
    """Seconds of the product, and the CPUs it kept busy, which numpy's environment may limit."""
    random = np.random.Generator(np.random.PCG64(0))
    a, b = (random.standard_normal((side, side), np.float32) for _ in range(2))
    out = np.empty_like(a)
    wall_s, own_s = time.perf_counter(), time.process_time()
    fastest = fastest_s(lambda: np.matmul(a, b, out=out))
    return fastest, (time.process_time() - own_s) / (time.perf_counter() - wall_s)


def _copy(size_bytes: int) -> float:
    threads = physical_cores()
    source, target = np.ones(size_bytes // 8), np.zeros(size_bytes // 8)
    parts = [slice(i * len(source) // threads, (i + 1) * len(source) // threads) for i in range(threads)]
    with ThreadPoolExecutor(threads) as pool:  # numpy lets go of the interpreter while it copies
        return fastest_s(lambda: list(pool.map(lambda part: np.copyto(target[part], source[part]), parts)))
