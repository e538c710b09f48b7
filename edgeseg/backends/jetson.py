"""Is this a Jetson, and which JetPack? Read from NVIDIA's release file; imports no SDK."""

from __future__ import annotations

import re
from pathlib import Path

RELEASE_FILE = Path("/etc/nv_tegra_release")
_JETPACK = {32: "4", 35: "5", 36: "6", 38: "7", 39: "7"}  # Jetson Linux release → JetPack


def jetson_hint(release_file: Path = RELEASE_FILE) -> str | None:
    """On a Jetson, one line for whom the import of TensorRT fails; None on any other machine."""
    try:
        match = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", release_file.read_text("utf-8", "replace"))
    except OSError:
        return None
    release = f"Jetson Linux {match[1]}.{match[2]}" if match else "Jetson Linux"
    jetpack = _JETPACK.get(int(match[1])) if match else None
    name = f"{release}, JetPack {jetpack}" if jetpack else release
    if jetpack in ("4", "5"):
        return f"{name}: its Python is older than 3.10; flash JetPack 6 (docs/jetson.md)"
    return f"{name}: make the virtual environment with --system-site-packages, so that it sees JetPack's TensorRT"
