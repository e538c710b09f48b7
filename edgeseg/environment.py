"""What a measurement or a result was made with, and the envelope of every `--json` output.

Versions come from the packages' metadata, so nothing heavy is imported to ask for them. `docs/json.md` describes both.
"""

from __future__ import annotations

import functools
import os
import platform
import re
from collections.abc import Iterable
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import edgeseg

SCHEMA = 1
# Distributions whose version can change a result or a time.
PACKAGES = (
    "numpy",
    "pillow",
    "tokenizers",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx",
    "cuda-python",
    "pycuda",
    "torch",
    "open-clip-torch",
)

_CPUINFO = Path("/proc/cpuinfo")
_BOARD = Path("/proc/device-tree/model")  # on a Jetson: "NVIDIA Jetson Orin Nano Developer Kit"


def environment() -> dict[str, Any]:
    """Versions, processor and board of this machine, as plain JSON."""
    return {
        "edgeseg": edgeseg.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "board": board(),
        "cpu": cpu_model(),
        "cores": core_count(),
        "packages": package_versions(),
    }


def envelope(command: str, **body: Any) -> dict[str, Any]:
    """What a verb prints with `--json`: the schema, the command, the date, the environment, and the verb's own keys."""
    return {"schema": SCHEMA, "command": command, "date": date(), "environment": environment(), **body}


def date() -> str:
    """Now, to the second, in UTC: "2026-01-31T12:00:00Z"."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def package_versions() -> dict[str, str]:
    """Versions of those of `PACKAGES` that are installed."""
    return dict(_installed())


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those of the named distributions that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def _installed() -> dict[str, str]:
    """Looked up once a process: it takes tens of milliseconds, and every image that is written asks."""
    return versions_of(PACKAGES)


def core_count() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model(cpuinfo: Path = _CPUINFO) -> str:
    """Name of the processor; its architecture where the system does not tell more (most ARM kernels)."""
    found = re.search(r"^model name\s*:\s*(.+)$", _text(cpuinfo), re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def board(model: Path = _BOARD) -> str | None:
    """Name of the board; None on machines without a device tree."""
    return _text(model).strip("\0 \n") or None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
