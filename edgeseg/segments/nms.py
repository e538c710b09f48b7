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
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left = np.argsort(-np.asarray(scores), kind="stable")
    kept: list[int] = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        sides = np.minimum(boxes[best, 2:], boxes[left, 2:]) - np.maximum(boxes[best, :2], boxes[left, :2])
        shared = sides.clip(min=0).prod(axis=1)
        union = areas[best] + areas[left] - shared
        # Two boxes without area are neither alike nor not: both stay.
        over = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
        left = left[~(over.astype(np.float64) > threshold)]  # float32 against the exact threshold, as there
    return np.array(kept, np.intp)
