"""What a run gives: exact counts, and the scores that follow from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from .count import Count, Int64
from .scores import Float64, Scores, score


@dataclass(frozen=True, eq=False)
class Accuracy:
    """How well engines label a data set. Scores are in percent, NaN where nothing can be said.

    Attributes:
        classes: C names.
        seen: for each class whether the model was trained on it; None for the background.
        background: index of the background class, or None.
        count: the images counted. `count.matrix` is (C, C + 1) int64: rows are the labels, columns the predictions, the
            last one "none of these".
        convention: the evaluator whose rules `scores` and the numbers beside it follow, a key of `CONVENTIONS`.
        resumed: how many of the images an earlier run had counted.
    """

    classes: tuple[str, ...]
    seen: tuple[bool | None, ...]
    background: int | None
    count: Count
    convention: str = "detectron2"
    resumed: int = 0

    def under(self, convention: str) -> Accuracy:
        """The same counts, scored by another evaluator's rules."""
        return replace(self, convention=convention)

    @cached_property
    def scores(self) -> Scores:
        """All scores; those used most also stand beside it."""
        return score(self.count.matrix, self.convention, self.seen)

    @property
    def confusion(self) -> Int64:
        """`count.matrix`."""
        return self.count.matrix

    @property
    def images(self) -> int:
        """Number of images counted."""
        return self.count.done

    @property
    def miou(self) -> float:
        """See `Scores`."""
        return self.scores.miou

    @property
    def pixel_accuracy(self) -> float:
        """See `Scores`."""
        return self.scores.pixel_accuracy

    @property
    def mean_accuracy(self) -> float:
        """See `Scores`."""
        return self.scores.mean_accuracy

    @property
    def fwiou(self) -> float:
        """See `Scores`."""
        return self.scores.fwiou

    @property
    def seen_miou(self) -> float:
        """See `Scores`."""
        return self.scores.seen_miou

    @property
    def unseen_miou(self) -> float:
        """See `Scores`."""
        return self.scores.unseen_miou

    @property
    def iou(self) -> Float64:
        """See `Scores`."""
        return self.scores.iou


@dataclass(frozen=True, eq=False)
class Agreement:
    """How far two engines give the same label map.

    Attributes:
        classes: P names.
        count: the images counted. `count.matrix` is (P + 1, P + 1) int64: rows are the other engine's labels, columns
            the first one's; the last of both is "none of these".
        resumed: how many of the images an earlier run had counted.
    """

    classes: tuple[str, ...]
    count: Count
    resumed: int = 0

    @property
    def images(self) -> int:
        """Number of images counted."""
        return self.count.done

    @property
    def agreement(self) -> float:
        """Share of pixels with the same label, in percent."""
        return 100 * float(np.trace(self.count.matrix)) / float(self.count.matrix.sum())

    @property
    def worst(self) -> float:
        """The same of the image where it is smallest."""
        return 100 * self.count.worst.share if self.count.worst else float("nan")

    @property
    def iou(self) -> Float64:
        """(P,) float64, overlap of the two engines' areas of each class, in percent; NaN where neither has any."""
        matrix = self.count.matrix
        both = np.diagonal(matrix).astype(np.float64)
        with np.errstate(invalid="ignore"):
            overlap: Float64 = 100 * both / (matrix.sum(0) + matrix.sum(1) - both)
        return overlap[:-1]
