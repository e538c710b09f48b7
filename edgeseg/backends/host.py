"""What backends without a GPU share: arrays are tensors, one stream whose work is done, and what the processor is."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from edgeseg.backends.base import Array, Event, Tensor


class HostEvent:
    """A point that has passed."""


class HostStream:
    """The one stream of a CPU: every call has ended when it returns."""

    def record(self) -> Event:
        """A point that has passed already."""
        return HostEvent()

    def wait(self, event: Event) -> None:
        """Nothing to wait for."""

    def synchronize(self) -> None:
        """Nothing to wait for."""


class HostTensors:
    """`upload` and `download` where tensors are numpy arrays."""

    def upload(self, array: Array) -> Tensor:
        """The array itself."""
        return array

    def download(self, tensor: Tensor) -> Array:
        """The array itself."""
        assert hasattr(tensor, "__array__")
        return tensor  # type: ignore[return-value]  # host tensors are numpy arrays


def overflows() -> bool:
    """Whether this processor is an x86 without VNNI: it adds pairs of 8-bit products in 16 bits."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        return "vnni" not in Path("/proc/cpuinfo").read_text()
    except OSError:
        return True


def physical_cores() -> int:
    """Cores this process may use: of its CPU set, hyper-threads counted once, and no more than a container's quota."""
    allowed = _allowed_cpus()
    siblings = {_siblings(cpu) for cpu in allowed}
    return max(min(len(siblings), _quota()), 1)


def _allowed_cpus() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _siblings(cpu: int) -> str:
    """Which hyper-threads share this CPU's core, as the kernel writes it; the CPU itself where it does not say."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    return path.read_text().strip() if path.exists() else str(cpu)


def _quota() -> int:
    """CPUs that cgroup v2 grants, rounded up; a very large number where it sets no limit."""
    path = Path("/sys/fs/cgroup/cpu.max")
    quota, _, period = path.read_text().partition(" ") if path.exists() else ("max", "", "")
    return -(-int(quota) // int(period)) if quota.strip() != "max" else 1 << 20
