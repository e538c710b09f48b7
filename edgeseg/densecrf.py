"""A dense conditional random field over an image's pixels, by mean-field inference (Krähenbühl and Koltun 2011).

Every pixel is connected with every other by two Gaussian kernels, of position and of position and colour. The sums over
all pixels are Gaussian filters; they are taken on the permutohedral lattice (Adams, Baek and Davis 2010): values are
spread to the corners of the simplex that each pixel's features lie in, blurred there along each axis of the lattice,
and read back. No library that has it is kept up and has wheels, so it is here, in numpy: seconds per image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

ITERATIONS = 10


@dataclass(frozen=True)
class Kernels:
    """Deviations in pixels and in steps of colour (0..255), and weights, as PnP-OVSS's code sets them."""

    near: float = 3.0
    near_weight: float = 7.0
    far: float = 50.0
    colour: float = 5.0
    far_weight: float = 10.0


def refine(scores: Float32, rgb: npt.NDArray[np.uint8], kernels: Kernels | None = None) -> Float32:
    """Label probabilities.

    Args:
        scores: (K, H, W) float32; their softmax over K is what each pixel says by itself.
        rgb: (H, W, 3) uint8.
        kernels: None takes the defaults.

    Returns:
        (K, H, W) float32, summing to 1 over K.
    """
    chosen = kernels or Kernels()
    labels, height, width = scores.shape
    y, x = (grid.reshape(-1) for grid in np.mgrid[:height, :width].astype(np.float32))
    place, colours = np.stack([x, y], 1), rgb.reshape(-1, 3).astype(np.float32)
    both = np.concatenate([place / chosen.far, colours / chosen.colour], 1)
    filters = [
        (Lattice(np.asarray(place / chosen.near, np.float32)), chosen.near_weight),
        (Lattice(np.asarray(both, np.float32)), chosen.far_weight),
    ]
    unary = np.log(_softmax(scores.reshape(labels, -1).T) + 1e-10)
    found = _softmax(unary)
    for _ in range(ITERATIONS):
        message = sum(weight * lattice.normalised(found) for lattice, weight in filters)
        found = _softmax(unary + message)
    return np.ascontiguousarray(found.T.reshape(labels, height, width), np.float32)


def _softmax(x: Float32) -> Float32:
    shifted = np.exp(x - x.max(1, keepdims=True))
    return np.asarray(shifted / shifted.sum(1, keepdims=True), np.float32)


class Lattice:
    """The permutohedral lattice around N points.

    Args:
        features: (N, d) float32, in deviations of the Gaussian.
    """

    def __init__(self, features: Float32) -> None:
        count, size = features.shape
        keys, self._weights = _simplex(features)
        low = keys.min((0, 1))
        spans = (keys.max((0, 1)) - low + 3).astype(np.int64)  # room for a neighbour on both sides
        self._strides = np.concatenate([[1], np.cumprod(spans[:-1])])
        codes = ((keys - low + 1) * self._strides).sum(2)
        self._corners, places = np.unique(codes, return_inverse=True)
        self._places = places.reshape(count, size + 1)
        self._neighbours = [self._along(axis) for axis in range(size + 1)]
        ones = self.filtered(np.ones((count, 1), np.float32))
        self._norm = 1 / np.sqrt(ones + 1e-20)

    def filtered(self, values: Float32) -> Float32:
        """The Gaussian sums of values (N, K) over all points, up to a factor."""
        corners = len(self._corners)
        held = np.zeros((corners + 1, values.shape[1]), np.float32)  # the last row is what lies nowhere
        for corner in range(self._places.shape[1]):
            weighted = values * self._weights[:, corner, None]
            for k in range(values.shape[1]):
                held[:corners, k] += np.bincount(self._places[:, corner], weighted[:, k], corners)
        for one, other in self._neighbours:
            held[:corners] = held[:corners] + 0.5 * (held[one] + held[other])
        read = [held[self._places[:, c]] * self._weights[:, c, None] for c in range(self._places.shape[1])]
        return np.asarray(sum(read), np.float32)

    def normalised(self, values: Float32) -> Float32:
        """The sums, divided by the square roots of both points' own, so that dense regions do not outweigh others."""
        return np.asarray(self.filtered(values * self._norm) * self._norm, np.float32)

    def _along(self, axis: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Indices of each corner's two neighbours along an axis of the lattice; one past the last where none is."""
        size = len(self._strides)
        step = np.full(size, -1, np.int64)
        if axis < size:
            step[axis] = size
        offset = int((step * self._strides).sum())
        return self._find(self._corners + offset), self._find(self._corners - offset)

    def _find(self, codes: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
        places = np.searchsorted(self._corners, codes).clip(0, len(self._corners) - 1)
        return np.where(self._corners[places] == codes, places, len(self._corners))


def _simplex(features: Float32) -> tuple[npt.NDArray[np.int64], Float32]:
    """The corners of each point's simplex, (N, d+1, d) integers, and the point's barycentric weights (N, d+1)."""
    count, size = features.shape
    lifted = _lifted(features)
    rounded = np.rint(lifted / (size + 1)) * (size + 1)
    rank = _rank(lifted - rounded)
    total = np.rint(rounded.sum(1, keepdims=True) / (size + 1)).astype(np.int64)
    rank += total
    over, under = rank > size, rank < 0
    rounded += (size + 1) * (under.astype(np.float64) - over)
    rank += (size + 1) * (under.astype(np.int64) - over)
    within = (lifted - rounded) / (size + 1)
    sorted_ = np.zeros((count, size + 2))
    rows = np.arange(count)[:, None]
    np.add.at(sorted_, (rows, size - rank), within)
    np.add.at(sorted_, (rows, size + 1 - rank), -within)
    sorted_[:, 0] += 1 + sorted_[:, size + 1]
    corners = np.arange(size + 1)
    canonical = np.where(
        rank[:, None, :size] > size - corners[None, :, None],
        corners[None, :, None] - (size + 1),
        corners[None, :, None],
    )
    keys = rounded[:, None, :size].astype(np.int64) + canonical
    return keys, sorted_[:, : size + 1].astype(np.float32)


def _lifted(features: Float32) -> npt.NDArray[np.float64]:
    """(N, d) → (N, d+1) on the plane of the lattice, so scaled that its blur has a deviation of one."""
    count, size = features.shape
    axes = np.arange(1, size + 1)
    scaled = features * (np.sqrt(2 / 3) * (size + 1) / np.sqrt(axes * (axes + 1)))
    lifted, total = np.zeros((count, size + 1)), np.zeros(count)
    for axis in range(size, 0, -1):
        lifted[:, axis] = total - axis * scaled[:, axis - 1]
        total += scaled[:, axis - 1]
    lifted[:, 0] = total
    return lifted


def _rank(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """How many coordinates are further from their rounded value, for each one; of equals the later ones count less."""
    order = np.argsort(-distance, axis=1, kind="stable")
    rank = np.empty(distance.shape, np.int64)
    np.put_along_axis(rank, order, np.arange(distance.shape[1])[None], 1)
    return rank
