"""Non-maximum suppression of boxes, as torchvision computes it: greedy, best first, ties in the order given."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def suppress(
    boxes: npt.NDArray[np.floating], scores: npt.NDArray[np.floating], threshold: float
) -> npt.NDArray[np.intp]:
    """Indices of the boxes that stay, best first.

    Args:
        boxes: (N, 4) left, top, right, bottom; a box's area is (right - left) * (bottom - top).
        scores: (N,).
        threshold: a box goes whose intersection over union with a better one that stays is larger.
    """
    boxes = np.asarray(boxes, np.float32)
    left = np.argsort(-np.asarray(scores), kind="stable")
    kept: list[int] = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        left = left[~(overlaps(boxes[best], boxes[left]) > threshold)]
    return np.array(kept, np.intp)


def overlaps(box: npt.NDArray[np.float32], boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Intersection over union of a box (4,) with others (N, 4), to be held against an exact threshold."""
    shared = intersections(box, boxes)
    union = areas(box) + areas(boxes) - shared
    # Two boxes without area are neither alike nor not: both stay.
    quotients = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    made: npt.NDArray[np.float64] = quotients.astype(np.float64)  # of float32, as torchvision has it
    return made


def intersections(box: npt.NDArray[np.float32], boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(N,) areas that a box shares with others (N, 4)."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    made: npt.NDArray[np.float32] = sides.clip(min=0).prod(axis=1)
    return made


def areas(boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Of boxes (..., 4)."""
    made: npt.NDArray[np.float32] = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    return made
