"""How much of each patch a mask covers: the weights by which a segment's patches are averaged."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edgeseg.placement import Placement
from edgeseg.segments.runs import Runs

Float32 = npt.NDArray[np.float32]


class AreaPooling:
    """Pools masks of one photo over a square grid of patches that covers the canvas.

    Args:
        placement: of the photo on the canvas.
        patches: number of patches, a square.
    """

    def __init__(self, placement: Placement, patches: int) -> None:
        side = math.isqrt(patches)
        extents = zip(placement.original, placement.valid, placement.canvas, strict=True)
        self._rows, self._columns = (_overlap(side, *extent) for extent in extents)

    def weights(self, runs: Runs) -> Float32:
        """(N, patches) float32, row-major, each row summing up to 1; an empty mask's row is zero."""
        made = np.zeros((len(runs), self._rows.shape[0] * self._columns.shape[0]), np.float32)
        for index in range(len(runs)):
            made[index] = (self._rows @ runs.mask(index).astype(np.float32) @ self._columns.T).ravel()
        return shares(made)

    def whole(self) -> Float32:
        """(1, patches): the weights of the whole photo."""
        return shares(np.outer(self._rows.sum(axis=1), self._columns.sum(axis=1)).reshape(1, -1))


def shares(areas: Float32) -> Float32:
    """Rows of areas as shares; a row of zeros stays."""
    total = areas.sum(axis=1, keepdims=True)
    made: Float32 = np.divide(areas, total, out=np.zeros_like(areas), where=total > 0)
    return made


def _overlap(side: int, original: int, valid: int, canvas: int) -> Float32:
    """(side, original): how much of each pixel of the photo lies in each patch, along one axis, 0 to 1."""
    pixels = np.arange(original + 1) * (valid / original)
    patches = np.arange(side + 1) * (canvas / side)
    ends = np.minimum(pixels[None, 1:], patches[1:, None])
    starts = np.maximum(pixels[None, :-1], patches[:-1, None])
    return np.asarray((ends - starts).clip(min=0) * (original / valid), np.float32)


def fixed_weights(batch: int, patches: int) -> Float32:
    """(batch, patches): segments that are blocks of patches, one around each point of `fixed_prompts`."""
    side, blocks = math.isqrt(patches), math.ceil(math.sqrt(batch))
    places = np.arange(side) * blocks // side
    block = (places[:, None] * blocks + places[None, :]).ravel()
    return shares((block[None] == np.arange(batch)[:, None]).astype(np.float32))
