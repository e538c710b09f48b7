"""Draws masks over their photo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgeseg.atomic import atomic_write, storage_errors
from edgeseg.palette import colour
from edgeseg.segments.runs import Runs

_OPACITY = 0.5


def draw_segments(rgb: npt.NDArray[np.uint8], runs: Runs) -> Image.Image:
    """The photo (H, W, 3) under the masks' colours, small masks over large ones."""
    made = rgb.copy()
    for index in np.argsort(-runs.areas(), kind="stable"):
        mask = runs.mask(int(index))
        mixed = rgb[mask] * (1 - _OPACITY) + np.array(colour(int(index))) * _OPACITY
        made[mask] = mixed.astype(np.uint8)
    return Image.fromarray(made)


def write_picture(image: Image.Image, path: Path) -> Path:
    """Write a PNG, and its folder if there is none. Raises StorageError."""
    with storage_errors(f"write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        image.save(temporary, format="PNG")
    return path
