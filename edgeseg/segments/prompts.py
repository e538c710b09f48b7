"""Prompts of SAM: points and boxes on a photo, as the decoder takes them, and the grids that ask for everything."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edgeseg.errors import InputError
from edgeseg.placement import Placement
from edgeseg.schema import Size

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

PADDING, BACKGROUND, OBJECT, TOP_LEFT, BOTTOM_RIGHT = -1, 0, 1, 2, 3
"""Labels of a point."""


def grid(per_side: int) -> Float64:
    """(per_side², 2) points (x, y) in 0..1, row by row, at the centres of equal cells."""
    centres = np.linspace(0.5 / per_side, 1 - 0.5 / per_side, per_side)
    return np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)


def on_canvas(points: npt.NDArray[np.floating], placement: Placement) -> Float32:
    """Points (..., 2), (x, y) in pixels of the photo, as (x, y) in pixels of the canvas."""
    (height, width), (new_height, new_width) = placement.original, placement.valid
    scale = np.array([new_width / width, new_height / height])
    return np.asarray(np.asarray(points, np.float64) * scale, np.float32)


def point_prompts(points: Float32, count: int) -> tuple[Float32, Float32]:
    """One object point (N, 2) per prompt → points (N, count, 2) and labels (N, count); the rest is padding."""
    coordinates = np.zeros((len(points), count, 2), np.float32)
    labels = np.full((len(points), count), PADDING, np.float32)
    coordinates[:, 0], labels[:, 0] = points, OBJECT
    return coordinates, labels


def box_prompts(boxes: npt.NDArray[np.floating], placement: Placement, count: int) -> tuple[Float32, Float32]:
    """Boxes (N, 4), (left, top, right, bottom) in pixels of the photo → points (N, count, 2) and labels.

    Raises:
        InputError: a box is empty or lies outside of the photo, or the decoder takes fewer or more points than two.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    height, width = placement.original
    good = (boxes[:, :2] < boxes[:, 2:]).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
    good &= (boxes[:, 0] < width) & (boxes[:, 1] < height) & np.isfinite(boxes).all(axis=1)
    if not good.all():
        found = f"{boxes[~good][0].tolist()} holds no pixel of a photo of {width} x {height}"
        raise InputError("use the box", found, "give left, top, right, bottom in pixels of the photo")
    if count != 2:
        # Each point that pads a prompt changes its mask a little, so a box is given alone, as the authors give it.
        found = f"the bundle's decoder takes {count} points per prompt"
        raise InputError("use a box", found, "export it with prompts of 2 points")
    corners = on_canvas(boxes.reshape(-1, 2, 2), placement)
    return corners, np.tile(np.array([TOP_LEFT, BOTTOM_RIGHT], np.float32), (len(boxes), 1))


def check_points(points: npt.NDArray[np.floating], size: Size) -> None:
    """Raise an InputError if one of the points (N, 2), (x, y), is not on a photo of `size`, (H, W)."""
    good = ((points >= 0) & (points < np.array(size[::-1]))).all(axis=1)
    if not good.all():
        found = f"{points[~good][0].tolist()} is not on a photo of {size[1]} x {size[0]}"
        raise InputError("use the point", found, "give x and y in pixels of the photo")


def fixed_prompts(batch: int, count: int, valid: Size) -> dict[str, Float32]:
    """One batch of the decoder's inputs: points spread evenly over the valid part of the canvas, and that part."""
    side = math.ceil(math.sqrt(batch))
    points = (grid(side)[:batch] * np.array(valid[::-1])).astype(np.float32)
    coordinates, labels = point_prompts(points, count)
    return {"points": coordinates, "point_labels": labels, "valid": np.array(valid, np.float32)}
