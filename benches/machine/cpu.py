"""How much of the CPUs other programs took, and how much the machine underneath took away."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .readings import text
from .sysfs import allowed_cpus

_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True)
class CpuTime:
    """Seconds of all allowed CPUs together, at one moment.

    Attributes:
        wall_s: the monotonic clock.
        busy_s: spent on any program; None where the kernel does not say.
        stolen_s: a hypervisor ran something else meanwhile; None likewise.
        own_s: spent on this process.
    """

    wall_s: float
    busy_s: float | None
    stolen_s: float | None
    own_s: float


@dataclass(frozen=True)
class CpuUse:
    """Between two moments, in CPUs: 1.5 means one and a half of them all the time. None: the kernel does not say."""

    own: float
    others: float | None
    stolen: float | None


def cpu_time(root: Path = Path("/"), cpus: Sequence[int] | None = None) -> CpuTime:
    """The counters now."""
    wanted = {f"cpu{cpu}" for cpu in cpus or allowed_cpus()}
    lines = [line.split() for line in (text(root / "proc/stat") or "").splitlines()]
    rows = [[int(field) for field in line[1:9]] for line in lines if line and line[0] in wanted and len(line) >= 9]
    busy = stolen = None
    if rows:  # user, nice, system, idle, iowait, irq, softirq, steal; what guests use is part of user
        busy = sum(row[0] + row[1] + row[2] + row[5] + row[6] for row in rows) / _TICKS_PER_S
        stolen = sum(row[7] for row in rows) / _TICKS_PER_S
    return CpuTime(time.monotonic(), busy, stolen, time.process_time())


def cpu_use(before: CpuTime, after: CpuTime) -> CpuUse:
    """What happened between two moments."""
    wall_s = max(after.wall_s - before.wall_s, 1e-9)
    own = (after.own_s - before.own_s) / wall_s
    others = stolen = None
    if before.busy_s is not None and after.busy_s is not None:
        others = max((after.busy_s - before.busy_s) / wall_s - own, 0.0)
    if before.stolen_s is not None and after.stolen_s is not None:
        stolen = (after.stolen_s - before.stolen_s) / wall_s
    return CpuUse(own, others, stolen)
