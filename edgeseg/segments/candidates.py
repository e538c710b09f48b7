"""Which of the masks that the points of a crop gave are kept: those that are stable, whole and no duplicates.

The result is that of filtering all masks and then dropping duplicates. The work is less: masks are taken best first,
and one that a better one drops, however its edge may run at the photo's size, is never brought to that size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeseg.schema import Size
from edgeseg.segments.nms import areas, intersections, overlaps
from edgeseg.segments.scaling import Box, MaskScaler, Part

Crop = tuple[int, int, int, int]  # left, top, right, bottom; right and bottom lie outside


@dataclass(frozen=True)
class Rules:
    """Which masks are kept, see `AutomaticOptions`."""

    stability: float
    offset: float
    box_nms: float


@dataclass(frozen=True, eq=False)
class Answer:
    """A small mask that a point gave.

    Attributes:
        part: what is needed to bring it to the photo's size. `outer`, `inner`: see `MaskScaler.bounds`.
        iou: the model's estimate. `point`: (x, y) in the crop. `number`: which of the point's masks it is.
    """

    part: Part
    outer: Box
    inner: Box | None
    iou: float
    point: tuple[float, float]
    number: int


@dataclass(frozen=True, eq=False)
class Candidate:
    """A mask that passed; its pixels are packed eight to a byte."""

    bits: npt.NDArray[np.uint8]
    shape: Size
    top: int
    left: int
    box: Box
    stability: float
    answer: Answer

    def mask(self, size: Size, crop: Crop) -> npt.NDArray[np.bool_]:
        """In the frame of the photo."""
        height, width = self.shape
        made = np.zeros(size, bool)
        rows, columns = crop[1] + self.top, crop[0] + self.left
        inside = np.unpackbits(self.bits, count=height * width).reshape(height, width)
        made[rows : rows + height, columns : columns + width] = inside
        return made


def kept(answers: Sequence[Answer], scaler: MaskScaler, rules: Rules, whole: Callable[[Box], bool]) -> list[Candidate]:
    """The masks that stay, best first.

    Args:
        answers: of all points of a crop.
        scaler: brings them to the crop's size.
        rules: see there.
        whole: whether the mask with this box ends within the crop.
    """
    found: list[Candidate] = []
    boxes = np.zeros((0, 4), np.float32)
    for answer in sorted(answers, key=lambda one: -one.iou):
        if _covered(answer, boxes, rules.box_nms):
            continue
        one = scaled(answer, scaler, rules)
        if one is None or not whole(one.box):
            continue
        box = np.array(one.box, np.float32)
        if not (overlaps(box, boxes) > rules.box_nms).any():
            found.append(one)
            boxes = np.concatenate((boxes, box[None]))
    return found


def _covered(answer: Answer, boxes: npt.NDArray[np.float32], threshold: float) -> bool:
    """Whether any box between the outer and the inner one would overlap one of the boxes too much."""
    if answer.inner is None:
        return False
    outer, inner = np.array(answer.outer, np.float32), np.array(answer.inner, np.float32)
    most = areas(outer) + areas(boxes) - intersections(outer, boxes)  # of a union
    return bool((intersections(inner, boxes) > threshold * most).any())


def scaled(answer: Answer, scaler: MaskScaler, rules: Rules) -> Candidate | None:
    """A mask at the crop's size, if it is stable there."""
    window = scaler.window(answer.part)
    below = int(np.count_nonzero(window.values > -rules.offset))
    stability = float(np.float32(np.count_nonzero(window.values > rules.offset) / below)) if below else math.nan
    if rules.stability > 0 and not stability >= rules.stability:
        return None
    inside = window.values > 0
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    box = (0, 0, 0, 0)
    if len(rows):
        left, top = window.left + int(columns[0]), window.top + int(rows[0])
        box = (left, top, window.left + int(columns[-1]), window.top + int(rows[-1]))
    height, width = inside.shape
    return Candidate(np.packbits(inside), (height, width), window.top, window.left, box, stability, answer)
