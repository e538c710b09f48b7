"""How far a calibration is, on the disk: an interrupted one goes on, and gives what an uninterrupted one gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.atomic import atomic_write
from edgeseg.bundle.arrays import read_npz
from edgeseg.errors import BundleError
from edgeseg.schema import from_json, to_json

from .gather import Counted
from .ranges import Smoothing


def save_progress(path: Path, key: str, done: int, counted: Mapping[str, Counted]) -> None:
    """Write how many images are done, and what was counted of each graph. Raises StorageError."""
    arrays: dict[str, Any] = {
        f"{name}/{part}": getattr(item, part)
        for name, item in counted.items()
        for part in ("histograms", "largest", "peaks")
    }
    smoothing = {name: to_json(item.smoothing) for name, item in counted.items()}
    texts: dict[str, Any] = {
        "key": np.array(key),
        "done": np.array(done),
        "smoothing": np.array(json.dumps(smoothing)),
    }
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **texts, **arrays)


def load_progress(path: Path, key: str) -> tuple[int, dict[str, Counted]] | None:
    """What `save_progress` wrote for the same calibration; None if there is nothing, or it is of another one."""
    if not path.is_file():
        return None
    try:
        arrays = read_npz(path)
        if str(arrays["key"]) != key:
            return None
        smoothing = from_json(dict[str, dict[str, Smoothing]], json.loads(str(arrays["smoothing"])))
        return int(arrays["done"]), {
            name: Counted(found, *(arrays[f"{name}/{part}"] for part in ("histograms", "largest", "peaks")))
            for name, found in smoothing.items()
        }
    except (BundleError, KeyError, ValueError):
        return None  # damaged: the work is done again
