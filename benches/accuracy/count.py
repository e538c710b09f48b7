"""Counts pairs of labels: an exact confusion matrix, image by image."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Tally:
    """What one image adds. Holds only the pairs that occur: with 847 classes a whole matrix would be 6 MB an image.

    Attributes:
        key: the image's.
        cells: (n,) int64, positions in the flat matrix, each once.
        counts: (n,) int64, pixels.
        correct, pixels: those on the diagonal, and all that were counted.
        exact: the image went in as the authors' code would have taken it.
    """

    key: str
    cells: Int64
    counts: Int64
    correct: int
    pixels: int
    exact: bool


@dataclass(frozen=True)
class Worst:
    """The image with the smallest share of right pixels; the first of them, in the data set's order."""

    key: str
    correct: int
    pixels: int

    @property
    def share(self) -> float:
        """0 to 1."""
        return self.correct / self.pixels


@dataclass(frozen=True, eq=False)
class Count:
    """What the images so far add up to. A new one is made for each image, so an interrupt leaves a whole one.

    Attributes:
        matrix: (R, K) int64; the pixels with the label of the row and the label of the column.
        done: number of images, from the data set's first on.
        inexact: how many of them went in otherwise than the authors' code takes them.
        worst: None as long as no pixel was counted.
        images: for each image what `image_classes` gives; None where that is not kept.
    """

    matrix: Int64
    done: int = 0
    inexact: int = 0
    worst: Worst | None = field(default=None)
    images: tuple[Int64, ...] | None = None

    def plus(self, tally: Tally) -> Count:
        """With one image more."""
        matrix = self.matrix.copy()
        matrix.reshape(-1)[tally.cells] += tally.counts
        worst = _worse(self.worst, tally)
        kept = None if self.images is None else (*self.images, image_classes(tally, matrix.shape))
        done, inexact = self.done + 1, self.inexact + (not tally.exact)
        return replace(self, matrix=matrix, done=done, inexact=inexact, worst=worst, images=kept)


def tally(key: str, rows: npt.NDArray[Any], columns: npt.NDArray[Any], shape: tuple[int, int], exact: bool) -> Tally:
    """Count an image's pixels.

    Args:
        key: the image's.
        rows: integers of any shape; below zero is not counted, otherwise less than `shape[0]`.
        columns: integers of the same shape, 0 to `shape[1] - 1`.
        shape: of the matrix.
        exact: see `Tally`.
    """
    counted = rows >= 0
    row, column = rows[counted].astype(np.int64), columns[counted].astype(np.int64)
    dense = np.bincount(row * shape[1] + column, minlength=0)
    cells = np.flatnonzero(dense)
    return Tally(key, cells, dense[cells].astype(np.int64), int((row == column).sum()), row.size, exact)


def image_classes(tally: Tally, shape: tuple[int, ...]) -> Int64:
    """(n, 4) int64 of an image: class, its pixels in the labels, in the predictions, in both; classes that occur.

    Args:
        tally: the image's.
        shape: of the matrix; its last column is none of the classes.
    """
    row, column = np.divmod(tally.cells, shape[1])
    labelled, predicted, correct = pixels = np.zeros((3, max(shape)), np.int64)
    np.add.at(labelled, row, tally.counts)
    np.add.at(predicted, column, tally.counts)
    right = row == column
    correct[row[right]] = tally.counts[right]
    there = np.flatnonzero(pixels[:, : shape[0]].any(0))
    return np.column_stack([there, *pixels[:, there]])


def _worse(worst: Worst | None, new: Tally) -> Worst | None:
    """Compares in whole numbers: shares in floating point could tie where these do not."""
    if new.pixels == 0:
        return worst
    if worst is None or new.correct * worst.pixels < worst.correct * new.pixels:
        return Worst(new.key, new.correct, new.pixels)
    return worst
