"""Reads the numbers of a label file, in each of the three forms in which they are published."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from edgeseg.errors import InputError
from edgeseg.images import MAX_PIXELS

from .mat import read_matrix

Numbers = npt.NDArray[Any]
Reader = Callable[[Path], Numbers]

_NUMBERS = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")  # P: the index is the label, the colour is for people
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)


def read_numbers(path: Path) -> Numbers:
    """(H, W) of a grey or indexed image, 8 or 16 bits: the numbers as they are stored. Raises InputError."""
    return _pixels(path, _NUMBERS, "one number per pixel")


def read_ade_full(path: Path) -> Numbers:
    """(H, W) class ids of ADE20K's `_seg.png`: red / 10, rounded down, times 256, plus green. Raises InputError."""
    pixels = _pixels(path, ("RGB", "RGBA"), "colours that hold the class in red and green").astype(np.int32)
    ids: Numbers = pixels[..., 0] // 10 * 256 + pixels[..., 1]
    return ids


def read_label_map(path: Path) -> Numbers:
    """(H, W) of Pascal Context's `.mat` files. Raises InputError."""
    return read_matrix(path, "LabelMap")


def _pixels(path: Path, modes: tuple[str, ...], wanted: str) -> Numbers:
    asked = f"read the labels {path}"
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(asked, f"it has {image.height}x{image.width} pixels", f"at most {MAX_PIXELS} are read")
            if image.mode not in modes:
                found = f"its colour mode is {image.mode}"
                raise InputError(asked, found, f"give labels as they were published: {wanted}")
            return np.array(image)
    except (UnidentifiedImageError, Image.DecompressionBombError, *_DAMAGE) as error:
        raise InputError(asked, f"it is missing or damaged ({error})", "get an undamaged copy") from None
