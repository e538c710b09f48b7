"""The images to calibrate on: which ones, in what order, and what the runtime makes of each."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeseg.bundle import Bundle
from edgeseg.errors import InputError
from edgeseg.images import SUFFIXES, load
from edgeseg.placement import Placement, place
from edgeseg.preprocess import resize_rgb
from edgeseg.schema import parse_size

from .ranges import Images

UInt8 = npt.NDArray[np.uint8]

NAMED = 10  # unreadable images that are named; the others are counted
TODO = "give a folder of images, or a text file with one path a line"


@dataclass(frozen=True, eq=False)
class Photo:
    """One image: where it is (a path, or its pixels), and where it goes on the bundle's canvases."""

    source: Any
    placement: Placement

    def rgb(self) -> UInt8:
        """(H, W, 3) uint8, resized as the runtime resizes it."""
        return resize_rgb(load(self.source).rgb, self.placement.valid)


@dataclass(frozen=True, eq=False)
class Photos:
    """Images grouped by canvas, and what is recorded of them."""

    items: tuple[Photo, ...]
    note: Images


def photos_at(where: Path, bundle: Bundle, limit: int, seed: int, watch: Callable[[int, int], None]) -> Photos:
    """The first `limit` readable images of a folder or a list, in an order that the seed gives.

    Raises:
        InputError: there is none, or none can be read.
    """
    paths = list_images(where)
    random.Random(seed).shuffle(paths)
    found: list[tuple[Photo, str]] = []
    bad: list[str] = []
    total = min(limit, len(paths))
    for path in paths:
        if len(found) == total:
            break
        watch(len(found), total)
        try:
            found.append(_read(path, bundle))
        except InputError:
            bad.append(path.name)
    watch(total, total)
    if not found:
        raise InputError(f"calibrate on {where}", f"none of its {len(paths)} images can be read", TODO)
    return _grouped(found, "images", seed, tuple(bad))


def reference_photos(bundle: Bundle) -> Photos:
    """The bundle's own reference inputs, a stand-in. Raises BundleError if it has none."""
    found = []
    for key in (key for key in bundle.manifest.reference if key != "text"):  # the text encoder has none
        for stored in bundle.reference(key):
            canvas = parse_size(key)
            digest = hashlib.sha256(np.ascontiguousarray(stored["image"]).data).hexdigest()
            found.append((Photo(stored["image"], Placement(canvas, canvas, canvas, True, None)), digest))
    if not found:
        raise InputError(f"calibrate {bundle.path}", "it holds no reference inputs either", f"--images: {TODO}")
    return _grouped(found, "reference", 0, ())


def list_images(where: Path) -> list[Path]:
    """The images of a folder and the folders in it, or those that a text file lists, relative to its own folder.

    Raises:
        InputError: there is nothing there, or no image.
    """
    asked = f"calibrate on {where}"
    try:
        if where.is_dir():
            paths = sorted(path for path in where.rglob("*") if path.suffix.lower() in SUFFIXES)
        else:
            lines = where.read_text(encoding="utf-8").splitlines()
            paths = [where.parent / line.strip() for line in lines if line.strip() and not line.startswith("#")]
    except UnicodeDecodeError:
        raise InputError(asked, "it is neither a folder nor a text file", TODO) from None
    except OSError as error:
        raise InputError(asked, error.strerror or str(error), TODO) from error
    if not paths:
        raise InputError(asked, "there are no images", TODO)
    return paths


def _read(path: Path, bundle: Bundle) -> tuple[Photo, str]:
    height, width = load(path).rgb.shape[:2]
    placement = place((height, width), bundle.manifest.canvases, bundle.manifest.recipe)
    return Photo(path, placement), hashlib.sha256(path.read_bytes()).hexdigest()


def _grouped(found: list[tuple[Photo, str]], source: str, seed: int, bad: tuple[str, ...]) -> Photos:
    """By canvas, because the networks of one canvas are loaded at a time; within one the order stays."""
    found = sorted(found, key=lambda item: item[0].placement.canvas)
    sha = hashlib.sha256("".join(digest for _, digest in found).encode()).hexdigest()
    note = Images(source, sha, len(found), seed, len(bad), bad[:NAMED])
    return Photos(tuple(photo for photo, _ in found), note)


def pilots(photos: Photos, count: int) -> Iterator[Photo]:
    """`count` images evenly spread over all, or all of them."""
    step = max(len(photos.items) / count, 1.0)
    return (photos.items[int(index * step)] for index in range(min(count, len(photos.items))))
