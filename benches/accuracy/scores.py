"""Scores of a confusion matrix, after the two evaluators whose numbers are published.

They differ in one thing: a class that no label shows, but that is predicted somewhere, is left out of the mean by
detectron2's SemSegEvaluator and counts as 0 in mmsegmentation's IoUMetric. (So for IoU; its accuracy is undefined in
both.)

A pixel that was predicted to be none of the classes is a miss in both. (detectron2 itself, whose models always choose a
class, would drop it.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .count import Int64

Float64 = npt.NDArray[np.float64]

SUMMARY = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "fwiou": "fwIoU",
    "seen_miou": "seen mIoU",
    "unseen_miou": "unseen mIoU",
}
"""Attributes of `Scores` that are one number → what they are called."""


@dataclass(frozen=True, eq=False)
class Scores:
    """In percent; NaN where nothing can be said.

    Attributes:
        miou: mean IoU. `mean_accuracy`: mean over classes of the share of their pixels that was found.
        pixel_accuracy: share of right pixels. `fwiou`: IoU weighted by the classes' pixels.
        iou, accuracy: (C,) float64, of each class.
        seen_miou, unseen_miou: the mean over classes that the model was trained on, and over the others.
    """

    miou: float
    pixel_accuracy: float
    mean_accuracy: float
    fwiou: float
    iou: Float64
    accuracy: Float64
    seen_miou: float
    unseen_miou: float


def score(confusion: Int64, convention: str, seen: Sequence[bool | None] | None = None) -> Scores:
    """Scores of a matrix.

    Args:
        confusion: (C, C) or (C, C + 1) int64; rows are the labels, columns the predictions, the last "none of these".
        convention: a key of `CONVENTIONS`.
        seen: for each class whether the model was trained on it; None for one that is neither (the background).
    """
    hits = np.diagonal(confusion).astype(np.float64)
    labelled = confusion.sum(1).astype(np.float64)
    predicted = confusion[:, : len(confusion)].sum(0).astype(np.float64)
    union = labelled + predicted - hits
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy = np.where(labelled > 0, hits / labelled, np.nan)
        iou = CONVENTIONS[convention](hits / union, labelled)
        shares = labelled / labelled.sum()
        pixel_accuracy = hits.sum() / labelled.sum()
    there = labelled > 0
    known = seen or [None] * len(confusion)
    return Scores(
        100 * _mean(iou),
        100 * float(pixel_accuracy),
        100 * _mean(accuracy),
        100 * float((iou[there] * shares[there]).sum()),
        100 * iou,
        100 * accuracy,
        100 * _mean(iou[[flag is True for flag in known]]),
        100 * _mean(iou[[flag is False for flag in known]]),
    )


def _labelled_classes(iou: Float64, labelled: Float64) -> Float64:
    return np.where(labelled > 0, iou, np.nan)


def _occurring_classes(iou: Float64, _: Float64) -> Float64:
    return iou


CONVENTIONS: dict[str, Callable[[Float64, Float64], Float64]] = {
    "detectron2": _labelled_classes,
    "mmseg": _occurring_classes,
}
"""Name → which classes count, as a function from (IoU of all, pixels labelled) to IoU with NaN for the others."""

EVALUATORS = {"detectron2": "detectron2's SemSegEvaluator", "mmseg": "mmsegmentation's IoUMetric"}
"""Name of a convention → the evaluator that it follows."""


def _mean(values: Float64) -> float:
    """Of those that are numbers; NaN without any. A sum over a count, as detectron2 does it, to the last digit."""
    numbers = values[~np.isnan(values)]
    return float(numbers.sum() / len(numbers)) if len(numbers) else float("nan")
