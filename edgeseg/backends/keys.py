"""Device keys: which machines an engine is for. Imports nothing but the standard library.

    cpu-x86_64            any CPU of that architecture (onnxruntime)
    sm87-trt10.3.0        one GPU architecture and one TensorRT
    sm86+sm89-rtx1.7.1    several architectures, one TensorRT-RTX

An engine's key may name several architectures, a machine's key names one. Engines of TensorRT load in the version that
made them, to the patch, so the versions must be equal.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path


def target(capability: tuple[int, int]) -> str:
    """Compute capability (8, 7) as "sm87"."""
    return f"sm{capability[0]}{capability[1]}"


def device_key(targets: Sequence[str], sdk: str, version: str) -> str:
    """`(["sm86", "sm89"], "rtx", "1.7.1.116")` as "sm86+sm89-rtx1.7.1"; at most three parts of the version count."""
    match = re.match(r"\d+(\.\d+){0,2}", version)
    if not match:
        raise ValueError(f"{version!r} is not a version")
    return f"{'+'.join(targets)}-{sdk}{match[0]}"


def matches(engine_device_key: str, probe_key: str) -> bool:
    """An engine with the first key runs on the machine with the second."""
    engine_targets, _, engine_rest = engine_device_key.partition("-")
    machine, _, machine_rest = probe_key.partition("-")
    return engine_rest == machine_rest and machine in engine_targets.split("+")


def rebuild_command(engine: Path, backend: str, precision: str) -> str:
    """The command that makes an engine file of a bundle again."""
    bundle = next((str(folder) for folder in engine.parents if (folder / "bundle.json").exists()), "BUNDLE")
    return f"edgeseg build {shlex.quote(bundle)} --backend {backend} --precision {precision}"
