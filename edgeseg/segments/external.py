"""Masks that someone else made, in place of SAM's: a folder of PNGs, COCO run lengths, or a file of segments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgeseg.errors import InputError
from edgeseg.schema import Size, size_text
from edgeseg.segments.runs import Runs, UInt32, check, encode_all, pack
from edgeseg.segments.segments import Segments

MOST_MASKS = 10_000
_FORMS = "a folder of PNGs, a .json of COCO run lengths, or a .npz of `edgeseg segments`"


def read_masks(path: Path, size: Size) -> Runs:
    """The masks for a photo of `size`, (H, W).

    A folder's PNGs are taken by name, one mask each; a pixel is inside where it is not black. A .json is a list of
    {"size": [height, width], "counts": [...]}, column by column, the first run outside. Masks may overlap, be empty and
    leave pixels out.

    Raises:
        InputError: there is no mask, one is of another size, or a file is damaged.
    """
    asked = f"read masks from {path}"
    if path.is_dir():
        runs = _from_folder(path, size, asked)
    elif path.suffix == ".json" and path.is_file():
        runs = _from_json(path, size, asked)
    elif path.suffix == ".npz" and path.is_file():
        runs = Segments.load(path).runs
    else:
        found = "there is no such file" if not path.exists() else "it is none of the forms that are read"
        raise InputError(asked, found, f"give {_FORMS}")
    if runs.size != size:
        found = f"they are {size_text(runs.size)}, and the photo is {size_text(size)}"
        raise InputError(asked, found, "make the masks of this photo, at its own size")
    return runs


def _from_folder(path: Path, size: Size, asked: str) -> Runs:
    files = sorted(item for item in path.iterdir() if item.suffix.lower() == ".png")
    if not files:
        raise InputError(asked, "no file in it ends in .png", f"give {_FORMS}")
    _check_count(len(files), asked)
    return encode_all((_picture(file, size) for file in files), size)


def _picture(file: Path, size: Size) -> npt.NDArray[np.bool_]:
    asked = f"read the mask {file}"
    try:
        with Image.open(file) as image:
            found: Size = (image.height, image.width)
            if found != size:
                todo = "make the masks of this photo, at its own size"
                raise InputError(asked, f"it is {size_text(found)}, and the photo is {size_text(size)}", todo)
            # A palette's first colour need not be black, so a palette's numbers count, not its colours.
            pixels = np.asarray(image if image.mode in ("1", "L", "P", "I;16", "I") else image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(asked, f"it is no whole PNG ({error})", "write it again") from None
    inside: npt.NDArray[np.bool_] = pixels != 0 if pixels.ndim == 2 else (pixels != 0).any(axis=2)
    return inside


def _from_json(path: Path, size: Size, asked: str) -> Runs:
    todo = 'give a list of {"size": [height, width], "counts": [...]}'
    try:
        listed = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(asked, f"it is no JSON ({error})", todo) from None
    if not isinstance(listed, list) or not listed:
        raise InputError(asked, "it is no list of masks, or an empty one", todo)
    _check_count(len(listed), asked)
    masks = [_counts(one, size, f"{asked}: mask {number}") for number, one in enumerate(listed)]
    return check(pack(masks, size), asked)


def _counts(one: Any, size: Size, asked: str) -> UInt32:
    todo = 'give {"size": [height, width], "counts": [...]}, the counts as numbers'
    if not isinstance(one, dict) or not isinstance(one.get("counts"), list) or not one["counts"]:
        raise InputError(asked, "it has no list of counts", todo)
    if one.get("size") != list(size):
        raise InputError(asked, f"its size is {one.get('size')}, and the photo is {size_text(size)}", todo)
    if not all(type(count) is int and 0 <= count <= size[0] * size[1] for count in one["counts"]):
        raise InputError(asked, "a count is no number of pixels", todo)
    return np.array(one["counts"], np.uint32)


def _check_count(count: int, asked: str) -> None:
    if count > MOST_MASKS:
        raise InputError(asked, f"there are {count}, and at most {MOST_MASKS} are read", "leave some out")
