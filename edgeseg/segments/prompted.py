"""Masks of what a user points at: one segment for each point, and one for each box."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgeseg.segments.candidates import Answer, Candidate, Rules, scaled
from edgeseg.segments.prompts import check_points
from edgeseg.segments.runs import encode_all
from edgeseg.segments.sam import Prompted, SamRunner
from edgeseg.segments.scaling import MaskScaler
from edgeseg.segments.segments import Segments

EVERY = Rules(stability=0.0, offset=1.0, box_nms=1.0)
"""Whoever asks for one mask gets it, however unsure it is."""

Point = tuple[float, float]


def _none(axes: int) -> npt.NDArray[np.float64]:
    return np.zeros((0, axes))


@dataclass(frozen=True, eq=False)
class Prompts:
    """What is asked of one photo, in its pixels.

    Attributes:
        points: (N, 2), x and y, each on an object of its own.
        boxes: (M, 4), left, top, right, bottom, each around an object of its own.
    """

    points: npt.NDArray[np.floating] = field(default_factory=lambda: _none(2))
    boxes: npt.NDArray[np.floating] = field(default_factory=lambda: _none(4))


def at_prompts(runner: SamRunner, rgb: npt.NDArray[np.uint8], prompts: Prompts) -> Segments:
    """The masks of a photo (H, W, 3) at the points, then those in the boxes, in the order given; one may be empty.

    A point has three readings (part, object, whole): the one that the decoder estimates to be best is taken. A box has
    one, the decoder's single mask (Kirillov et al. 2023, section 3).

    Raises:
        InputError: a point or a box lies outside of the photo.
    """
    check_points(prompts.points, (rgb.shape[0], rgb.shape[1]))
    placement = runner.embed(rgb)
    points: list[Point] = [(float(x), float(y)) for x, y in prompts.points]
    scaler, size = runner.scaler(), placement.original
    found = list(_best(runner.at_points(prompts.points), scaler, points, several=True))
    found += _best(runner.in_boxes(prompts.boxes), scaler, [(math.nan, math.nan)] * len(prompts.boxes), several=False)
    return Segments(
        runs=encode_all((one.mask(size, (0, 0, size[1], size[0])) for one in found), size),
        iou=np.array([one.answer.iou for one in found], np.float32),
        stability=np.array([one.stability for one in found], np.float32),
        points=np.array([one.answer.point for one in found], np.float32).reshape(-1, 2),
        answer=np.array([one.answer.number for one in found], np.int8),
    )


def _best(
    batches: Iterator[Prompted], scaler: MaskScaler, points: list[Point], *, several: bool
) -> Iterator[Candidate]:
    """One mask of each prompt at the photo's size: the best of several, or the single one."""
    rows = ((masks, iou) for batch in batches for masks, iou in zip(batch.masks, batch.iou, strict=True))
    for (masks, iou), point in zip(rows, points, strict=True):
        number = 1 + int(iou[1:].argmax()) if several else 0
        part = scaler.part(masks[number], -EVERY.offset)
        one = scaled(Answer(part, *scaler.bounds(masks[number]), float(iou[number]), point, number), scaler, EVERY)
        assert one is not None, "no rule drops it"
        yield one
