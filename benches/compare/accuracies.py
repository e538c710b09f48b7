"""Compares two accuracy results: the difference of mIoU, with an interval where each image's counts were kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..accuracy.scores import CONVENTIONS
from .bootstrap import RESAMPLES, SEED, Float64, Interval, interval

MISSING = "there is no interval: it needs each image's counts in both results (bench accuracy --per-image)"
OTHERS = "there is no interval: the images of the two results have different names"

_COLUMNS = ("labelled_pixels", "predicted_pixels", "correct_pixels")
_AT_ONCE = 100


@dataclass(frozen=True, eq=False)
class Images:
    """Counts of each image, all (N, C) float64: whole numbers that are exact in it.

    Attributes:
        labelled, predicted, correct: pixels of a class in the labels, in the predictions, in both.
    """

    labelled: Float64
    predicted: Float64
    correct: Float64

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> Images:
        """From a result that holds them."""
        shape = len(body["per_image"]), len(body["classes"])
        made = cls(*(np.zeros(shape) for _ in _COLUMNS))
        for index, row in enumerate(body["per_image"]):
            for name, table in zip(_COLUMNS, (made.labelled, made.predicted, made.correct), strict=True):
                table[index, row["classes"]] = row[name]
        return made

    def miou(self, weights: Float64, convention: str) -> Float64:
        """(R,) mIoU in percent of R resamples; `weights` (R, N): how often each image was drawn."""
        labelled, predicted, correct = (weights @ table for table in (self.labelled, self.predicted, self.correct))
        with np.errstate(invalid="ignore", divide="ignore"):
            iou = CONVENTIONS[convention](correct / (labelled + predicted - correct), labelled)
        counted = ~np.isnan(iou)
        mean: Float64 = 100 * np.where(counted, iou, 0).sum(1) / np.maximum(counted.sum(1), 1)
        return mean


def compare_accuracies(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Convention → both mIoU, their difference (B's minus A's) and its interval; and notes."""
    missing = _missing(a, b)
    images = None if missing else (Images.read(a), Images.read(b))
    rows = {}
    for convention in CONVENTIONS:
        mine, theirs = (body["scores"][convention]["miou_percent"] for body in (a, b))
        known = mine is not None and theirs is not None
        found = difference_of_miou(*images, convention) if images and known else None
        rows[convention] = {
            "a_miou_percent": mine,
            "b_miou_percent": theirs,
            "difference_percent": round(theirs - mine, 6) if known else None,
            "low_percent": None if found is None else round(found.low, 6),
            "high_percent": None if found is None else round(found.high, 6),
            "verdict": verdict(found),
        }
    return rows, [missing] if missing else []


def difference_of_miou(a: Images, b: Images, convention: str) -> Interval:
    """B's mIoU minus A's in percent points; the same images are drawn for both, with replacement."""
    random = np.random.Generator(np.random.PCG64(SEED))
    count = len(a.labelled)
    once = np.ones((1, count))
    drawn = []
    for _ in range(RESAMPLES // _AT_ONCE):
        weights = random.multinomial(count, np.full(count, 1 / count), _AT_ONCE).astype(np.float64)
        drawn.append(b.miou(weights, convention) - a.miou(weights, convention))
    return interval(float((b.miou(once, convention) - a.miou(once, convention))[0]), np.concatenate(drawn))


def verdict(found: Interval | None) -> str:
    """What a difference shows."""
    if found is None:
        return "no interval"
    if found.holds(0):
        return "no difference shown"
    return "B is better" if found.low > 0 else "B is worse"


def _missing(a: Mapping[str, Any], b: Mapping[str, Any]) -> str | None:
    """Why there can be no interval."""
    if not (a.get("per_image") and b.get("per_image")):
        return MISSING
    return None if _keys(a["per_image"]) == _keys(b["per_image"]) else OTHERS


def _keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [row["key"] for row in rows]
