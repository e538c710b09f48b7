"""The label map from query masks and class probabilities, tile by tile: no classes x height x width array exists.

The score of class c at a pixel is the sum over queries q of `class_probs[q, c] * sigmoid(logits[q])`, the logits
bilinearly enlarged to the canvas, cropped to the valid part, and bilinearly resized to the image. Both resizes are
linear and separable, so each axis is one operator from mask cells to image pixels, with at most three cells per pixel.

Per tile:

1. Interpolation stays within the smallest and largest logit of the cells it reads, so a query's mask lies in a known
   interval.
2. A class that loses against some other class for every value in these intervals, by more than float32 can err, is left
   out.
3. If one class is left and no scores are asked for, the tile has its label. Otherwise the logits are interpolated, and
   one matrix product gives the scores of the classes that are left.

Step 2 is a bound, not an approximation: the labels are those of the full product. It is skipped for a while where it
does not pay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeseg.bilinear import matrix
from edgeseg.placement import Placement
from edgeseg.schema import Size

Float32 = npt.NDArray[np.float32]

NONE_LABEL = 65535
"""The label of a pixel whose best score is below the threshold."""

TILE = 32
_LOGIT_FLOOR = np.float32(-60)  # sigmoid is 1e-26 there; below, exp overflows and products become slow denormal numbers
_EPSILON = 2.0**-23  # of float32
_FLOAT_ERROR = 1e-6  # of a sigmoid whose logit was interpolated in float32
_KEEP_SHARE, _REST_TILES = 0.8, 16  # where more than this share of classes is left, the next tiles are not pruned


@dataclass(frozen=True, eq=False)
class Composition:
    """A label map.

    Attributes:
        labels: (H, W) uint16 of the image's size; `NONE_LABEL` where the best score is below the threshold.
        areas: (C,) int64, pixels of each class.
        best: (H, W) float32, the winner's score; None unless it was asked for.
    """

    labels: npt.NDArray[np.uint16]
    areas: npt.NDArray[np.int64]
    best: Float32 | None = None


@dataclass(frozen=True, eq=False)
class _Scene:
    """What all tiles share.

    Attributes:
        cells: (h, w, Q) logits.
        rows, columns: one operator per axis.
        class_probs: (Q, C).
        margin: of the pruning.
        masks, scores, differences: flat buffers; fresh arrays of their size would cost a page fault per 4 KiB and tile.
    """

    cells: Float32
    rows: Float32
    columns: Float32
    class_probs: Float32
    margin: float
    masks: Float32
    scores: Float32
    differences: Float32


@dataclass(frozen=True, eq=False)
class _Tile:
    """A part of the image: its slices, and the operators restricted to the cells it reads."""

    y: slice
    x: slice
    rows: Float32
    columns: Float32
    cells: Float32


def axis_operator(cells: int, canvas: int, valid: int, original: int) -> Float32:
    """(original, cells) float32: enlarge `cells` to `canvas`, crop to `valid`, resize to `original`."""
    enlarge = matrix(cells, canvas, cells / canvas)[:valid]
    return enlarge if original == valid else matrix(valid, original, valid / original) @ enlarge


def compose(logits: Float32, class_probs: Float32, placement: Placement) -> Composition:
    """The label map.

    Args:
        logits: (Q, h, w) float32, finite, mask logits of the whole canvas.
        class_probs: (Q, C) float32, not negative.
        placement: where the image lies on the canvas.
    """
    scene = _scene(logits, class_probs, placement)
    labels = np.empty(placement.original, np.uint16)
    rest = 0
    for tile in _tiles(scene, placement.original):
        kept = None if rest else _possible(tile.cells, scene)
        rest = max(rest - 1, 0) if kept is None or len(kept) < _KEEP_SHARE * class_probs.shape[1] else _REST_TILES
        if kept is not None and len(kept) == 1:
            labels[tile.y, tile.x] = kept[0]
        else:
            labels[tile.y, tile.x] = _winners(tile, scene, kept)
    return Composition(labels, _areas(labels, class_probs.shape[1]))


def compose_scored(
    logits: Float32, class_probs: Float32, placement: Placement, threshold: float | None = None
) -> Composition:
    """The label map and each pixel's best score. See `compose`; slower where it would not need the scores.

    Args:
        logits: as in `compose`.
        class_probs: as in `compose`.
        placement: as in `compose`.
        threshold: pixels whose best score is below it get `NONE_LABEL`.
    """
    scene = _scene(logits, class_probs, placement)
    labels, best = np.empty(placement.original, np.uint16), np.empty(placement.original, np.float32)
    for tile in _tiles(scene, placement.original):
        kept = _possible(tile.cells, scene)
        scores = _scores(tile, scene, scene.class_probs[:, kept])
        winners = scores.argmax(2)
        labels[tile.y, tile.x] = kept[winners]
        best[tile.y, tile.x] = np.take_along_axis(scores, winners[..., None], 2)[..., 0]
    if threshold is not None:
        labels[best < threshold] = NONE_LABEL
    return Composition(labels, _areas(labels, class_probs.shape[1]), best)


def score_tiles(logits: Float32, class_probs: Float32, placement: Placement) -> Iterator[tuple[slice, slice, Float32]]:
    """(y, x, scores) of every tile; scores is (rows, columns, C) float32: all of them, without the memory."""
    scene = _scene(logits, class_probs, placement)
    for tile in _tiles(scene, placement.original):
        yield tile.y, tile.x, _scores(tile, scene, scene.class_probs).copy()


def _scene(logits: Float32, class_probs: Float32, placement: Placement) -> _Scene:
    queries, height, width = logits.shape
    sides = zip((height, width), placement.canvas, placement.valid, placement.original, strict=True)
    rows, columns = (axis_operator(*side) for side in sides)
    cells = np.ascontiguousarray(logits.transpose(1, 2, 0), np.float32)
    error = 4 * queries * _EPSILON + _FLOAT_ERROR
    margin = error * float(class_probs.sum(0).max())
    probs = np.ascontiguousarray(class_probs, np.float32)
    lengths = (TILE * TILE * queries, TILE * TILE * probs.shape[1], probs.size)
    masks, scores, differences = (np.empty(length, np.float32) for length in lengths)
    return _Scene(cells, rows, columns, probs, margin, masks, scores, differences)


def _tiles(scene: _Scene, original: Size) -> Iterator[_Tile]:
    for top in range(0, original[0], TILE):
        y, row_cells, rows = _part(scene.rows, top)
        strip = scene.cells[row_cells]
        for left in range(0, original[1], TILE):
            x, column_cells, columns = _part(scene.columns, left)
            yield _Tile(y, x, rows, columns, strip[:, column_cells])


def _part(operator: Float32, start: int) -> tuple[slice, slice, Float32]:
    """The pixels from `start`, the cells they read, and the operator from these cells to these pixels."""
    pixels = slice(start, min(start + TILE, len(operator)))
    used = np.flatnonzero(operator[pixels].any(0))
    cells = slice(int(used[0]), int(used[-1]) + 1)
    return pixels, cells, np.ascontiguousarray(operator[pixels, cells])


def _possible(cells: Float32, scene: _Scene) -> npt.NDArray[np.intp]:
    """Ascending indices of the classes that may win somewhere among the cells.

    For the class `best` at the middle of all intervals, `class - best` is at most its value there plus the sum over
    queries of |difference of probabilities| times half the interval.
    """
    flat = cells.reshape(-1, cells.shape[-1])
    low, high = _sigmoid(flat.min(0)), _sigmoid(flat.max(0))
    middle, half = (low + high) / 2, (high - low) / 2
    scores = middle @ scene.class_probs
    best = int(scores.argmax())
    difference = scene.differences.reshape(scene.class_probs.shape)
    np.subtract(scene.class_probs, scene.class_probs[:, best, None], out=difference)
    bound = scores - scores[best] + half @ np.abs(difference, out=difference)
    return np.flatnonzero(bound >= -scene.margin)


def _winners(tile: _Tile, scene: _Scene, kept: npt.NDArray[np.intp] | None) -> npt.NDArray[np.intp]:
    if kept is None or len(kept) == scene.class_probs.shape[1]:
        every: npt.NDArray[np.intp] = _scores(tile, scene, scene.class_probs).argmax(2)
        return every
    winners: npt.NDArray[np.intp] = kept[_scores(tile, scene, scene.class_probs[:, kept]).argmax(2)]
    return winners


def _scores(tile: _Tile, scene: _Scene, class_probs: Float32) -> Float32:
    """(rows, columns, C) of the given classes; valid until the next call."""
    (height, width, queries), classes = tile.cells.shape, class_probs.shape[1]
    tall, wide = len(tile.rows), len(tile.columns)
    stretched = (tile.rows @ tile.cells.reshape(height, width * queries)).reshape(tall, width, queries)
    masks = scene.masks[: tall * wide * queries].reshape(tall, wide, queries)
    scores = scene.scores[: tall * wide * classes].reshape(tall * wide, classes)
    _sigmoid(np.matmul(tile.columns, stretched, out=masks))
    np.matmul(masks.reshape(-1, queries), class_probs, out=scores)
    return scores.reshape(tall, wide, classes)


def _sigmoid(logits: Float32) -> Float32:
    """In place."""
    np.maximum(logits, _LOGIT_FLOOR, out=logits)
    np.negative(logits, out=logits)
    np.exp(logits, out=logits)
    np.add(logits, 1, out=logits)
    return np.reciprocal(logits, out=logits)


def _areas(labels: npt.NDArray[np.uint16], classes: int) -> npt.NDArray[np.int64]:
    return np.bincount(labels.ravel(), minlength=classes)[:classes].astype(np.int64)
