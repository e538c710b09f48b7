"""The conditions of one measurement: what the machine says before, during and after it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgeseg.environment import core_count

from .cpu import CpuUse, cpu_time, cpu_use
from .nvml import Nvml
from .readings import Range, Source, Watch
from .sysfs import Sysfs, governors, power_mode, slow_downs


@dataclass
class Conditions:
    """Filled in when the measurement ends.

    Attributes:
        power_mode: of the board or the firmware; None where there is no such thing.
        governors: frequency governors of the CPUs; empty where the kernel does not set the clock.
        cores: CPUs that this process may use.
        load_average: of the minute before the measurement; None where the kernel does not say.
        gpu: what `Nvml.facts` said; None without a GPU.
        gpu_busy_percent: the GPU's use when the `Machine` was made; None if unknown.
        ranges: clocks, temperatures, power, use, read during it.
        throttles: what held a clock down during it.
        slow_downs: what happened during it, and how often.
        cpu: who used the CPUs during it.
        power_capped: the GPU's power limit held its clock down.
    """

    power_mode: str | None = None
    governors: tuple[str, ...] = ()
    cores: int = 1
    load_average: float | None = None
    gpu: dict[str, Any] | None = None
    gpu_busy_percent: int | None = None
    ranges: tuple[Range, ...] = ()
    throttles: tuple[str, ...] = ()
    slow_downs: dict[str, int] = field(default_factory=dict)
    cpu: CpuUse = field(default_factory=lambda: CpuUse(0.0, None, None))
    power_capped: bool = False

    def describe(self) -> dict[str, Any]:
        """As plain JSON (docs/json.md)."""
        rounded = {"own": self.cpu.own, "others": self.cpu.others, "stolen": self.cpu.stolen}
        return {
            "power_mode": self.power_mode,
            "governors": list(self.governors),
            "cores": self.cores,
            "load_average": self.load_average,
            "cpu_use": {name: None if value is None else round(value, 3) for name, value in rounded.items()},
            "gpu": self.gpu and self.gpu | {"busy_before_percent": self.gpu_busy_percent},
            "readings": [_rounded(asdict(found)) for found in self.ranges],
            "throttles": list(self.throttles),
            "slow_downs": self.slow_downs,
        }


class Machine:
    """This machine, or in tests a made-up one.

    Args:
        gpu: the GPU that the measurement uses; its use is asked for at once, before anything of one's own runs there.
        root: "/" but in tests.
    """

    def __init__(self, gpu: Nvml | None = None, root: Path = Path("/")) -> None:
        self._gpu, self._root = gpu, root
        self._gpu_busy_percent = gpu.utilization() if gpu else None

    @contextmanager
    def watch(self) -> Iterator[Conditions]:
        """Around a measurement; what it yields is complete afterwards."""
        found = self._before()
        sources: list[Source] = [Sysfs(self._root), *([self._gpu] if self._gpu else [])]
        watch, counts, start = Watch(sources), slow_downs(self._root), cpu_time(self._root)
        with watch:
            yield found
        found.cpu = cpu_use(start, cpu_time(self._root))
        found.ranges, found.throttles = watch.ranges(), tuple(sorted(watch.throttles))
        grown = {name: count - counts.get(name, 0) for name, count in slow_downs(self._root).items()}
        found.slow_downs = {name: count for name, count in grown.items() if count > 0}
        found.power_capped = self._gpu is not None and self._gpu.power_capped

    def _before(self) -> Conditions:
        return Conditions(
            power_mode(self._root),
            governors(self._root),
            core_count(),
            _load_average(),
            self._gpu.facts() if self._gpu else None,
            self._gpu_busy_percent,
        )


def _load_average() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}
