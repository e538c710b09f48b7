"""Mask recall: how many of the labelled segments the masks of everything in an image find, whatever their class.

On semantic labels a segment is a connected component of one class (eight neighbours) of at least `LEAST` pixels. A mask
finds a segment at a threshold if their intersection over union reaches it; pixels without a label belong to neither.
Segments share no pixel, so above one half a mask can find only one of them, and none has to be given to one of two.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeseg.errors import InputError
from edgeseg.segmenter import Segmenter
from edgeseg.segments.finder import Wish
from edgeseg.segments.regions import regions
from edgeseg.segments.runs import Runs

from ..datasets import Dataset

Int32 = npt.NDArray[np.int32]
Float64 = npt.NDArray[np.float64]

LEAST = 100
THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))
RULE = f"connected components of one class, of at least {LEAST} pixels"


@dataclass(frozen=True)
class Recall:
    """Of a data set's images at one grid.

    Attributes:
        points_per_side: of the grid.
        images, segments, masks: how many there were.
        found: segments that a mask finds, for each of `THRESHOLDS`.
        seconds: of an image, the median; its masks alone.
    """

    points_per_side: int
    images: int
    segments: int
    masks: int
    found: tuple[int, ...]
    seconds: float

    @property
    def at(self) -> list[float | None]:
        """Percent of the segments found at each threshold; None without a segment."""
        return [100 * found / self.segments if self.segments else None for found in self.found]

    @property
    def average(self) -> float | None:
        """The mean of these, in percent."""
        return 100 * sum(self.found) / (len(THRESHOLDS) * self.segments) if self.segments else None


def measure_recall(
    segmenter: Segmenter, dataset: Dataset, grids: Sequence[int], progress: Callable[[int, int], None]
) -> list[Recall]:
    """Recall at each grid, with the recipe's other options.

    Args:
        segmenter: of a bundle with a SAM.
        dataset: with labels.
        grids: points per side.
        progress: gets (images done, all images), all grids together.

    Raises:
        InputError: the data set has no labels, or an image or a grid cannot be used.
        BundleError: the bundle has no SAM.
    """
    if not dataset.labelled:
        raise InputError(f"find the segments of {dataset.name}", "it has no labels", "leave --mask-recall out")
    made: dict[int, list[tuple[Float64, int, float]]] = {grid: [] for grid in grids}
    for index in range(len(dataset)):
        sample = dataset.load(index)
        counted = sample.labels >= 0
        truth = components(sample.labels)
        for number, grid in enumerate(grids):
            start = time.perf_counter()
            runs = segmenter.segments(sample.rgb, Wish(options={"points_per_side": grid})).runs
            seconds = time.perf_counter() - start
            made[grid].append((best_overlaps(runs, truth, counted), len(runs), seconds))
            progress(index * len(grids) + number + 1, len(dataset) * len(grids))
    return [_recall(grid, rows) for grid, rows in made.items()]


def components(labels: Int32, least: int = LEAST) -> Int32:
    """The segments of a label map (H, W), numbered 1, 2, ...; 0 where there is none. Labels below 0 count as none."""
    numbers = np.zeros(labels.shape, np.int32)
    count = 0
    for label in np.unique(labels[labels >= 0]):
        marks, sizes = regions(labels == label)
        large = np.concatenate(([False], sizes >= least))
        names = np.zeros(len(large), np.int32)
        names[large] = count + 1 + np.arange(large.sum())
        numbers += names[marks]
        count += int(large.sum())
    return numbers


def best_overlaps(runs: Runs, truth: Int32, counted: npt.NDArray[np.bool_]) -> Float64:
    """(n,) for each segment the largest IoU with a mask, among the pixels that count.

    Args:
        runs: masks of the size of `truth`.
        truth: from `components`.
        counted: (H, W).
    """
    areas = np.bincount(truth.ravel())[1:]
    best = np.zeros(len(areas))
    for index in range(len(runs)):
        mask = runs.mask(index) & counted
        shared = np.bincount(truth[mask], minlength=len(areas) + 1)[1:]
        best = np.maximum(best, shared / (areas + mask.sum() - shared))
    return best


def parse_grids(text: str | None) -> list[int]:
    """The value of `--mask-recall`, each grid once. Raises InputError."""
    words = text.split(",") if text else []
    if not all(word.strip().isdecimal() and int(word) for word in words):
        raise InputError(f"use --mask-recall {text}", "it is no list of numbers from 1 on", "write 8,16,32")
    return list(dict.fromkeys(map(int, words)))


def describe_recall(found: Sequence[Recall]) -> dict[str, Any]:
    """As plain JSON."""
    rows = [
        {
            "points_per_side": one.points_per_side,
            "average_recall_percent": one.average,
            "recall_percent": one.at,
            "images": one.images,
            "segments": one.segments,
            "masks": one.masks,
            "median_s": one.seconds,
        }
        for one in found
    ]
    return {"mask_recall": {"segments": RULE, "iou": list(THRESHOLDS), "grids": rows}}


def recall_lines(found: Sequence[Recall]) -> Iterator[str]:
    """For people."""
    for one in found:
        numbers = "no segment" if one.average is None else f"{one.average:.2f} %"
        grid = f"grid {one.points_per_side}x{one.points_per_side}"
        each = f"{one.masks / max(one.images, 1):.0f} masks and {one.seconds:.1f} s an image"
        yield f"mask recall, IoU 0.5 to 0.95, {grid}: {numbers} of {one.segments} segments ({RULE}), {each}"


def _recall(grid: int, rows: Sequence[tuple[Float64, int, float]]) -> Recall:
    overlaps = np.concatenate([np.zeros(0), *(row[0] for row in rows)])
    found = tuple(int((overlaps >= threshold).sum()) for threshold in THRESHOLDS)
    seconds = median(row[2] for row in rows) if rows else 0.0
    return Recall(grid, len(rows), len(overlaps), sum(row[1] for row in rows), found, seconds)
