"""True labels of calibration images, where the user has some: PNG files, one value per pixel."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgeseg.errors import InputError

from ..photos import Photo, Photos

MODES = ("L", "P", "I;16", "I;16B", "I")
TODO = "give a folder with one PNG per image, of the image's name and size, whose values are places in the class list"

Labels = npt.NDArray[Any]


class Truth:
    """The labels of photos: pixel value n is class number n; values beyond the classes are not counted.

    Args:
        folder: holds NAME.png for the image NAME.jpg.
        photos: read from files.
        classes: how many there are.

    Attributes:
        digest: of all files.

    Raises:
        InputError: an image has no labels, or not of its size, two have the same, or no pixel of any is counted.
    """

    def __init__(self, folder: Path, photos: Photos, classes: int) -> None:
        self._folder, self._photos, self._classes = folder, photos, classes
        if not folder.is_dir():
            raise InputError(f"read labels from {folder}", "there is no such folder", TODO)
        sha, counted = hashlib.sha256(str(classes).encode()), 0
        taken: dict[Path, Photo] = {}
        for index, photo in enumerate(photos.items):
            first = taken.setdefault(_path(folder, photo), photo)
            if first is not photo:
                found = f"{first.source} and {photo.source} would share {_path(folder, photo).name}"
                raise InputError(f"read labels from {folder}", found, "give images whose names differ")
            labels = self.labels(index)
            counted += int((labels >= 0).sum())
            sha.update(_path(folder, photo).read_bytes())
        if not counted:
            raise InputError(f"read labels from {folder}", f"no value in them is below {classes}", TODO)
        self.digest = sha.hexdigest()

    def labels(self, index: int) -> Labels:
        """(H, W) int64 of a photo's size, -1 where a pixel is not counted."""
        photo = self._photos.items[index]
        path = _path(self._folder, photo)
        asked = f"read the labels {path}"
        try:
            with Image.open(path) as image:
                if image.mode not in MODES:
                    raise InputError(asked, f"its mode is {image.mode}", TODO)
                values = np.asarray(image).astype(np.int64)
        except InputError:
            raise
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(asked, str(error), TODO) from error
        if values.shape != photo.placement.original:
            height, width = values.shape[:2]
            wanted = "x".join(map(str, photo.placement.original))
            raise InputError(asked, f"they are {height}x{width} and the image is {wanted}", TODO)
        return np.where(values < self._classes, values, -1)


def _path(folder: Path, photo: Photo) -> Path:
    if not isinstance(photo.source, Path):
        found = "the bundle's reference inputs stand in for images, and have no labels"
        raise InputError(f"read labels from {folder}", found, "give --images too")
    return folder / f"{photo.source.stem}.png"
