"""Pictures of one image: photo, labels, prediction, errors. Small, so that a page stays one of a few megabytes.

No panel needs its colours to be told apart: regions carry their class's number, and errors are striped.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from edgeseg.palette import colour, colours

LONG_SIDE = 400
"""Of a panel in pixels; with JPEG's quality below, four of them are about 100 kB."""

SHOWN_CLASSES = 12

_QUALITY = 80
_OPACITY = 0.7
_STRIPE = 5  # pixels across two stripes' diagonal
_LEAST_SHARE = 0.004  # of the pixels, for a region to get its number
_WRONG, _WRONG_DARK, _UNSCORED = (225, 0, 60), (70, 0, 20), (40, 40, 40)

UInt8 = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Entry:
    """A class in the legend: its number, name, colour, and share of the labelled and of the predicted pixels."""

    label: int
    name: str
    rgb: tuple[int, int, int]
    labelled: float
    predicted: float


@dataclass(frozen=True)
class Picture:
    """What is shown of one image.

    Attributes:
        title: which image of what.
        panels: what each shows, and its JPEG as a data URI.
        entries: the largest classes in it.
    """

    title: str
    panels: tuple[tuple[str, str], ...]
    entries: tuple[Entry, ...]


def draw(title: str, rgb: UInt8, labels: Labels, predicted: Labels, names: tuple[str, ...]) -> Picture:
    """The four panels.

    Args:
        title: of the picture.
        rgb: (H, W, 3) uint8.
        labels: (H, W) int32, classes; below zero is not scored.
        predicted: (H, W) int32, classes; `len(names)` is none of them.
        names: of the classes.
    """
    entries = _entries(labels, predicted, names)
    photo = Image.fromarray(rgb)
    photo.thumbnail((LONG_SIDE, LONG_SIDE))
    small_labels, small_predicted = (_shrunk(found, photo.size) for found in (labels, predicted))
    wrong = (small_labels >= 0) & (small_labels != small_predicted)
    panels = {
        "photo": photo,
        "labels": _map(photo, small_labels, entries, len(names)),
        "prediction": _map(photo, small_predicted, entries, len(names)),
        "errors": _errors(photo, wrong, small_labels < 0),
    }
    return Picture(title, tuple((name, data_uri(image)) for name, image in panels.items()), entries)


def data_uri(image: Image.Image) -> str:
    """A JPEG that is part of the page."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _entries(labels: Labels, predicted: Labels, names: tuple[str, ...]) -> tuple[Entry, ...]:
    scored = labels >= 0
    counts = [np.bincount(found[scored], minlength=len(names) + 1)[: len(names)] for found in (labels, predicted)]
    whole = max(int(scored.sum()), 1)
    largest = np.argsort(-(counts[0] + counts[1]), kind="stable")[:SHOWN_CLASSES].tolist()
    made = [Entry(i, names[i], colour(i), counts[0][i] / whole, counts[1][i] / whole) for i in largest]
    return tuple(entry for entry in made if entry.labelled or entry.predicted)


def _shrunk(found: Labels, size: tuple[int, int]) -> Labels:
    """Nearest neighbour; `size` is PIL's (width, height)."""
    rows, columns = (np.arange(new) * old // new for new, old in zip(size[::-1], found.shape, strict=True))
    small: Labels = found[rows[:, None], columns]
    return small


def _map(photo: Image.Image, found: Labels, entries: tuple[Entry, ...], count: int) -> Image.Image:
    """The photo in grey under the classes' colours, each large region with its number."""
    grey = _grey(photo)
    known = (found >= 0) & (found < count)
    grey[known] = grey[known] * (1 - _OPACITY) + colours(count)[found[known]] * _OPACITY
    grey[~known] = _UNSCORED
    image = Image.fromarray(grey.astype(np.uint8))
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(max(image.width // 17, 12))
    for entry in entries:
        place = _middle(found == entry.label)
        if place is not None:
            pen.text(place, str(entry.label), "white", font, anchor="mm", stroke_width=2, stroke_fill="black")
    return image


def _middle(region: npt.NDArray[np.bool_]) -> tuple[int, int] | None:
    """(x, y) of the region's pixel that is nearest to the middle of it; None for one too small for a number."""
    rows, columns = np.nonzero(region)
    if len(rows) < _LEAST_SHARE * region.size:
        return None
    nearest = np.argmin((rows - np.median(rows)) ** 2 + (columns - np.median(columns)) ** 2)
    return int(columns[nearest]), int(rows[nearest])


def _errors(photo: Image.Image, wrong: npt.NDArray[np.bool_], unscored: npt.NDArray[np.bool_]) -> Image.Image:
    """Right pixels are a pale photo, wrong ones striped, those that are not scored dark."""
    pixels = 110 + _grey(photo) * 0.55
    rows, columns = np.indices(wrong.shape)
    stripe = (rows + columns) // _STRIPE % 2 == 0
    pixels[wrong & stripe], pixels[wrong & ~stripe] = _WRONG, _WRONG_DARK
    pixels[unscored] = _UNSCORED
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _grey(photo: Image.Image) -> npt.NDArray[Any]:
    return np.asarray(photo.convert("L").convert("RGB"), np.float32).copy()
