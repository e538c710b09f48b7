"""What NVIDIA's Jetson boards add under `/sys`: power rails, the GPU's clock, the power mode.

Facts from NVIDIA's Jetson Linux Developer Guide (Orin series: hwmon nodes of the INA3221, devfreq, nvpmodel).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from .readings import Reading, number, text

_GPU = re.compile(r"(.*\.)?(gpu|ga10b|gv11b|gpu-gpc-\d+)")
_MONITORS = ("ina3221", "ina238", "ina226")


def readings(root: Path) -> Iterator[Reading]:
    """Clock of the GPU and power of every rail; nothing on other machines."""
    for device in sorted(root.glob("sys/class/devfreq/*")):
        hertz = number(device / "cur_freq") if _GPU.fullmatch(device.name) else None
        if hertz is not None:
            yield Reading("clock_mhz", "gpu", hertz / 1e6)
    for monitor in sorted(root.glob("sys/class/hwmon/hwmon*")):
        if text(monitor / "name") in _MONITORS:
            yield from _rails(monitor)


def _rails(monitor: Path) -> Iterator[Reading]:
    """Of one chip: in[n] in mV and curr[n] in mA, or power[n] in µW. A channel that measures no rail has no current."""
    for label in sorted(monitor.glob("in*_label")):
        channel = label.name.removeprefix("in").removesuffix("_label")
        volts, amperes = number(monitor / f"in{channel}_input"), number(monitor / f"curr{channel}_input")
        name = text(label)
        if name and name != "NC" and volts is not None and amperes is not None:
            yield Reading("power_w", name, volts * amperes / 1e6)
    for power in sorted(monitor.glob("power*_input")):
        watts = number(power)
        if watts is not None:
            name = text(power.with_name(power.name.replace("_input", "_label"))) or monitor.name
            yield Reading("power_w", name, watts / 1e6)


def power_mode(root: Path) -> str | None:
    """The name of the nvpmodel mode that is on ("MAXN_SUPER"), or its number where the table is missing."""
    status = re.search(r"pmode:(\d+)", text(root / "var/lib/nvpmodel/status") or "")
    if not status:
        return None
    mode = int(status[1])
    table = text(root / "etc/nvpmodel.conf") or ""
    names = re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", table)
    return next((str(name) for identity, name in names if int(identity) == mode), str(mode))
