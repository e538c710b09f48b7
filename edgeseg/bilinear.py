"""Bilinear interpolation with half-pixel centres and edge clamp, like torch's `F.interpolate(align_corners=False)`.

Each output coordinate reads two neighbours, without antialiasing. Both axes are independent, so everything here is
about one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Taps:
    """What each of n outputs along one axis reads: `(1 - weight) * x[lower] + weight * x[upper]`.

    Attributes:
        lower, upper: (n,) indices.
        weight: (n,) float32, 0 to 1.
    """

    lower: npt.NDArray[np.intp]
    upper: npt.NDArray[np.intp]
    weight: Float32


def taps(length: int, outputs: int, step: float) -> Taps:
    """The taps of `outputs` coordinates on an axis of `length`; `step` is the input distance of two outputs.

    Positions are float32, as in torch: a position that rounds across a pixel border must do so here too.
    """
    centres = (np.arange(outputs, dtype=np.float32) + np.float32(0.5)) * np.float32(step) - np.float32(0.5)
    positions = np.maximum(centres, np.float32(0))
    lower = np.minimum(positions.astype(np.intp), length - 1)
    weight = np.clip(positions - lower.astype(np.float32), 0, 1).astype(np.float32)
    return Taps(lower, np.minimum(lower + 1, length - 1), weight)


def matrix(length: int, outputs: int, step: float) -> Float32:
    """The taps as an (outputs, length) operator."""
    found = taps(length, outputs, step)
    rows = np.arange(outputs)
    operator = np.zeros((outputs, length), np.float32)
    np.add.at(operator, (rows, found.lower), 1 - found.weight)
    np.add.at(operator, (rows, found.upper), found.weight)
    return operator


def resample(array: Float32, axis: int, found: Taps) -> Float32:
    """`array` with `axis` interpolated at the taps."""
    shape = [1] * array.ndim
    shape[axis] = -1
    weight = found.weight.reshape(shape)
    return np.take(array, found.lower, axis) * (1 - weight) + np.take(array, found.upper, axis) * weight
