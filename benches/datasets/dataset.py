"""A data set on disk: so many images in a fixed order, each with its label map in class indices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeseg.bilinear import resample, taps
from edgeseg.errors import InputError
from edgeseg.images import load
from edgeseg.schema import Size, size_text
from edgeseg.vocabulary.classes import ClassList

from .label_map import IGNORE, Int32, apply, counted
from .layout import Item, Layout, place
from .scoring import Scoring
from .table import ROWS, Row

UInt8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Sample:
    """An image with its labels.

    Attributes:
        key: its name in the data set.
        rgb: (H, W, 3) uint8 RGB, upright.
        labels: (H, W) int32, class indices; `Dataset.ignore` where nothing is scored (everywhere, without labels).
    """

    key: str
    rgb: UInt8
    labels: Int32


@dataclass(frozen=True, eq=False)
class Dataset:
    """A split of a data set. Can be pickled; holds paths, no pixels.

    Attributes:
        name, split: as in `open_dataset`; the split is "" where a user's folder has none.
        root: the folder that its layout is relative to.
        layout: the form in which it was found.
        scoring: its classes and prompts.
        items: its images, sorted by key.
        published: how many images the split has where it is complete; None if that is not known.
    """

    name: str
    split: str
    root: Path
    layout: Layout
    scoring: Scoring
    items: tuple[Item, ...]
    published: int | None = None
    _table: Int32 = field(default_factory=lambda: np.empty(0, np.int32), repr=False)

    @property
    def classes(self) -> ClassList:
        """The classes that are scored, in the order of the labels."""
        return self.scoring.classes

    @property
    def prompts(self) -> ClassList:
        """The names that a model is asked for; `classes` for all but PAS-20b."""
        return self.scoring.prompts

    @property
    def ignore(self) -> int:
        """The label that is not scored."""
        return IGNORE

    @property
    def labelled(self) -> bool:
        """Whether it has labels at all."""
        return self.layout.labels is not None

    def __len__(self) -> int:
        return len(self.items)

    def item(self, index: int) -> Item:
        """Where an image and its labels are; reads nothing."""
        return self.items[index]

    def photo(self, index: int) -> UInt8:
        """Read an image alone: (H, W, 3) uint8 RGB, of the size that is scored. Raises InputError."""
        rgb = load(self.items[index].image).rgb
        return _resized(rgb, _shrunk(_size(rgb), self.layout.short_side))

    def load(self, index: int) -> Sample:
        """Read an image and its labels.

        Raises:
            InputError: a file is missing or damaged, the sizes differ, or a label is none of the data set's.
        """
        item = self.items[index]
        rgb = load(item.image).rgb
        size = _shrunk(_size(rgb), self.layout.short_side)
        labels = np.full(_size(rgb), IGNORE, np.int32) if item.labels is None else self._labels(item.labels, rgb)
        return Sample(item.key, _resized(rgb, size), _nearest(labels, size))

    def first(self, count: int) -> Dataset:
        """The same with its first images only."""
        return replace(self, items=self.items[:count])

    def _labels(self, path: Path, rgb: UInt8) -> Int32:
        raw = self.layout.read(path)
        if raw.shape != _size(rgb):
            found = f"they are {'x'.join(map(str, raw.shape))} and the image is {size_text(_size(rgb))}"
            raise InputError(f"read the labels {path}", found, "give the image that these labels were drawn on")
        return apply(self._table, raw, path)


def open_dataset(name: str, root: Path | str, split: str | None = None, layout: str | None = None) -> Dataset:
    """Find a data set's files and check that none is missing.

    Args:
        name: a key of `ROWS`.
        root: its folder, or one that holds several data sets under their usual names.
        split: as it is called on disk, or its beginning ("val" for "validation"); None takes the one that is scored, or
            for a user's folder none.
        layout: the form on disk; None takes the first that is there.

    Raises:
        InputError: there is no such data set, split or folder, or images or labels are missing.
    """
    if name not in ROWS:
        raise InputError(f"open the data set {name!r}", "edgeseg does not know it", f"take one of {', '.join(ROWS)}")
    row, root, asked = ROWS[name](), Path(root), f"open the data set {name} in {root}"
    if not root.is_dir():
        raise InputError(asked, "there is no such folder", "give the folder that holds it")
    chosen = _split(row, asked, split)
    home, form = _find(row, asked, root, chosen, layout)
    scoring = row.scoring(home)
    values = form.values or counted(len(scoring.classes.names), 0, (255, 65535))
    items = form.items(home, chosen)
    return Dataset(name, chosen, home, form, scoring, items, row.published.get(chosen), values.table())


def _split(row: Row, asked: str, split: str | None) -> str:
    if not row.splits:
        return split or ""
    matching = [known for known in row.splits if known == split] or [
        known for known in row.splits if known.startswith(split or row.splits[0])
    ]
    if len(matching) != 1:
        raise InputError(asked, f"it has no split {split!r}", f"take one of {', '.join(row.splits)}")
    return matching[0]


def _find(row: Row, asked: str, root: Path, split: str, name: str | None) -> tuple[Path, Layout]:
    layouts = [form for form in row.layouts if name in (None, form.name)]
    if not layouts:
        known = ", ".join(form.name for form in row.layouts)
        raise InputError(asked, f"it has no layout {name!r}", f"take one of {known}")
    homes = [root, *(place(root, home, "") for home in row.homes)]
    for home in homes:
        for form in layouts:
            if form.is_at(home, split):
                return home, form
    raise _not_there(asked, layouts, homes, split, row.splits)


def _not_there(
    asked: str, layouts: Sequence[Layout], homes: Sequence[Path], split: str, splits: Sequence[str]
) -> InputError:
    others = [s for s in splits if s != split and any(form.is_at(home, s) for form in layouts for home in homes)]
    if others:
        return InputError(asked, f"its split {split} is not there", f"get it, or take --split {others[0]}")
    found = "; nor ".join(form.describe(split) for form in layouts)
    return InputError(asked, f"there is no {found}", "give the folder that holds these as --root")


def _size(rgb: UInt8) -> Size:
    return rgb.shape[0], rgb.shape[1]


def _shrunk(size: Size, short: int | None) -> Size:
    """ADE20K-847's authors made larger images so small; halves are rounded to even, as Python's round does."""
    height, width = size
    if short is None or min(size) <= short:
        return size
    return (short, round(width / height * short)) if width >= height else (round(height / width * short), short)


def _resized(rgb: UInt8, size: Size) -> UInt8:
    """Bilinear without antialiasing, as the authors' OpenCV does it (which may differ by one in 255)."""
    if _size(rgb) == size:
        return rgb
    pixels = rgb.astype(np.float32)
    for axis in (0, 1):
        pixels = resample(pixels, axis, taps(rgb.shape[axis], size[axis], rgb.shape[axis] / size[axis]))
    return np.rint(pixels).astype(np.uint8)


def _nearest(labels: Int32, size: Size) -> Int32:
    """The pixel at i times the ratio, rounded down: OpenCV's nearest neighbour."""
    if labels.shape == size:
        return labels
    rows, columns = (
        np.minimum(np.floor(np.arange(new) * (old / new)).astype(np.intp), old - 1)
        for old, new in zip(labels.shape, size, strict=True)
    )
    chosen: Int32 = labels[rows[:, None], columns]
    return chosen
