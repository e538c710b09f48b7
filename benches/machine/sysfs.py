"""Clocks, temperatures, power and limits of any Linux machine, from `/sys` and `/proc`.

`root` is "/" but in tests.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import jetson
from .readings import Reading, number, text

_CPUS = "sys/devices/system/cpu"
# Devices of the thermal framework that slow something down when it heats up; a fan is one that does not.
_SLOWS = re.compile(r".*throttle-alert|cpufreq-.*|thermal-cpufreq-.*|devfreq-.*gpu.*|Processor")


def allowed_cpus() -> list[int]:
    """Numbers of the CPUs that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


class Sysfs:
    """A `Source`: clock of the fastest allowed CPU, thermal zones, CPU packages' power, and what a Jetson adds."""

    def __init__(self, root: Path = Path("/"), cpus: Sequence[int] | None = None) -> None:
        self._root, self._cpus = root, allowed_cpus() if cpus is None else list(cpus)
        self._energy: dict[Path, tuple[float, float]] = {}  # RAPL domain → microjoules, when

    def readings(self) -> Iterator[Reading]:
        """See `Source`."""
        clocks = [number(self._root / f"{_CPUS}/cpu{cpu}/cpufreq/scaling_cur_freq") for cpu in self._cpus]
        known = [clock for clock in clocks if clock is not None]
        if known:
            yield Reading("clock_mhz", "cpu", max(known) / 1e3)
        yield from self._temperatures()
        yield from self._packages()
        yield from jetson.readings(self._root)

    def throttles(self) -> Iterator[str]:
        """See `Source`."""
        for device in sorted(self._root.glob("sys/class/thermal/cooling_device*")):
            name = text(device / "type") or ""
            if _SLOWS.fullmatch(name) and (number(device / "cur_state") or 0) > 0:
                yield f"the cooling device {name} is on"

    def _temperatures(self) -> Iterator[Reading]:
        for zone in sorted(self._root.glob("sys/class/thermal/thermal_zone*")):
            name, value = text(zone / "type"), number(zone / "temp")
            if name and value is not None and value > 0:  # a zone that is off says 0 or less
                yield Reading("temperature_c", name, value / 1e3)

    def _packages(self) -> Iterator[Reading]:
        """Power since the reading before, from the energy counters of Intel and AMD; often only root may read them."""
        for domain in sorted(self._root.glob("sys/class/powercap/intel-rapl:[0-9]*")):
            energy_uj, name = number(domain / "energy_uj"), text(domain / "name")
            if energy_uj is None or not name or not name.startswith("package"):
                continue
            now_s = time.monotonic()
            before_uj, before_s = self._energy.get(domain, (energy_uj, now_s))
            self._energy[domain] = (energy_uj, now_s)
            if now_s > before_s and energy_uj >= before_uj:  # the counter starts again from 0 now and then
                yield Reading("power_w", name, (energy_uj - before_uj) / 1e6 / (now_s - before_s))


def governors(root: Path = Path("/"), cpus: Sequence[int] | None = None) -> tuple[str, ...]:
    """The frequency governors of the allowed CPUs; empty where the kernel does not set the clock (virtual machines)."""
    found = {text(root / f"{_CPUS}/cpu{cpu}/cpufreq/scaling_governor") for cpu in cpus or allowed_cpus()}
    return tuple(sorted(name for name in found if name))


def power_mode(root: Path = Path("/")) -> str | None:
    """A Jetson's nvpmodel mode, or the firmware's platform profile; None where there is neither."""
    return jetson.power_mode(root) or text(root / "sys/firmware/acpi/platform_profile")


def slow_downs(root: Path = Path("/"), cpus: Sequence[int] | None = None) -> dict[str, int]:
    """Counters that only grow: how often something slowed this machine down, by what."""
    counts = {
        "CPU thermal throttling": [
            root / f"{_CPUS}/cpu{cpu}/thermal_throttle/core_throttle_count" for cpu in cpus or allowed_cpus()
        ],
        "over-current events": list(root.glob("sys/class/hwmon/hwmon*/oc*_event_cnt")),
    }
    found = {name: [number(path) for path in paths] for name, paths in counts.items()}
    sums = {name: int(sum(value for value in values if value is not None)) for name, values in found.items()}
    quota = re.search(r"^nr_throttled (\d+)$", text(root / "sys/fs/cgroup/cpu.stat") or "", re.MULTILINE)
    return sums | ({"stops by the container's CPU quota": int(quota[1])} if quota else {})
