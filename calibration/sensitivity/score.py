"""What one photo adds to a trial, and what the photos add up to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeseg.backends.base import Array

from .ledger import Row

Labels = npt.NDArray[Any]


@dataclass(frozen=True)
class TensorError:
    """A tensor against the fp32 chain's, over all photos.

    Attributes:
        cosine: 1 if both are zero, -1 if it holds numbers that are not finite.
        relative: length of the difference, in lengths of the fp32 tensor; None if that cannot be said.
    """

    cosine: float
    relative: float | None


@dataclass(frozen=True)
class Score:
    """What a trial found.

    Attributes:
        different_percent: of all labels, those that are not the fp32 chain's.
        miou_percent: against true labels; None without any.
        tensors: the outputs of the graphs that were changed.
    """

    different_percent: float
    miou_percent: float | None = None
    tensors: dict[str, TensorError] = field(default_factory=dict)

    @property
    def worst(self) -> tuple[str, TensorError]:
        """The tensor that is furthest off."""
        return max(self.tensors.items(), key=lambda item: (badness(item[1].relative), item[0]))


def badness(relative: float | None) -> float:
    """A relative error as a number to sort by."""
    return math.inf if relative is None else relative


def row(labels: Labels | None, exact: Labels, tensors: Mapping[str, tuple[Array, Array]], truth: Labels | None) -> Row:
    """What one photo adds.

    Args:
        labels: (H, W); None if the chain gave numbers that are not finite, and so no labels.
        exact: those of the fp32 chain.
        tensors: name → what the trial gave, and what the fp32 chain gives.
        truth: (H, W) true labels, negative where none is; None without any.
    """
    different = exact.size if labels is None else int((labels != exact).sum())
    found: Row = {"different": different, "pixels": exact.size}
    if tensors:
        found["tensors"] = {name: _sums(*pair) for name, pair in tensors.items()}
    if truth is not None:
        found["cells"] = _cells(labels, truth)
    return found


def total(rows: Sequence[Row], classes: int) -> Score:
    """What the rows add up to; `classes` is how many there are."""
    share = sum(one["different"] for one in rows) / max(sum(one["pixels"] for one in rows), 1)
    names = rows[0].get("tensors", {}) if rows else {}
    tensors = {name: _error([one["tensors"][name] for one in rows]) for name in names}
    miou = _miou([cell for one in rows for cell in one["cells"]], classes) if rows and "cells" in rows[0] else None
    return Score(100 * share, miou, tensors)


def _sums(found: Array, exact: Array) -> list[float] | None:
    """Products of the two with each other and themselves, and the square of their difference; None if not finite."""
    if not np.isfinite(found).all():
        return None
    a, b = (np.ascontiguousarray(array, np.float64).reshape(-1) for array in (found, exact))
    return [float(a @ b), float(a @ a), float(b @ b), float(np.square(a - b).sum())]


def _error(sums: Sequence[Sequence[float] | None]) -> TensorError:
    known = [one for one in sums if one is not None]
    if len(known) < len(sums):
        return TensorError(-1.0, None)
    ab, aa, bb, squares = (math.fsum(one[place] for one in known) for place in range(4))
    cosine = min(ab / math.sqrt(aa * bb), 1.0) if aa and bb else float(aa == bb)
    return TensorError(cosine, math.sqrt(squares / bb) if bb else (None if squares else 0.0))


def _cells(labels: Labels | None, truth: Labels) -> list[list[int]]:
    """[true label, label, pixels] of each pair that occurs; no labels are label -1."""
    counted = truth >= 0
    mine = np.full(truth.shape, -1, np.int64) if labels is None else labels.astype(np.int64)
    pairs = np.stack([truth[counted].astype(np.int64), mine[counted]], axis=1)
    unique, counts = np.unique(pairs, axis=0, return_counts=True)
    return [[int(a), int(b), int(count)] for (a, b), count in zip(unique, counts, strict=True)]


def _miou(cells: Sequence[Sequence[int]], classes: int) -> float:
    """In percent, the mean over classes that the true labels show."""
    matrix = np.zeros((classes, classes + 1), np.int64)  # the last column: no label
    for true, found, pixels in cells:
        matrix[true, found] += pixels
    hits, labelled = np.diagonal(matrix).astype(np.float64), matrix.sum(1)
    union = labelled + matrix[:, :classes].sum(0) - hits
    there = labelled > 0
    return float(100 * (hits[there] / union[there]).mean()) if there.any() else 0.0
