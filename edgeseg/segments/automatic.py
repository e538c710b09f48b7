"""Masks of everything in a photo: SAM asked at a grid of points, its answers filtered, duplicates dropped.

The rules and their order are those of segment-anything's generator; so are the defaults. What differs is the work:
a mask is brought to the photo's size only if its scores and the better masks let it live, and only where it can be
positive.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeseg.errors import InputError
from edgeseg.schema import Size
from edgeseg.segments.candidates import Answer, Candidate, Crop, Rules, kept
from edgeseg.segments.nms import suppress
from edgeseg.segments.prompts import grid
from edgeseg.segments.regions import without_small
from edgeseg.segments.runs import encode, encode_all
from edgeseg.segments.sam import Prompted, SamRunner
from edgeseg.segments.scaling import Box
from edgeseg.segments.segments import Segments

UInt8 = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]

SLACK = 0.2
"""How far the stability of a small mask may lie below the threshold for the photo's size to be tried: a mask of a few
cells is coarse."""

EDGE = 20
"""Pixels within which a box touches the edge of a crop."""


@dataclass(frozen=True)
class AutomaticOptions:
    """Which masks are made and kept; a bundle's recipe may have other defaults.

    Attributes:
        points_per_side: of the grid; the square of it is asked.
        pred_iou_threshold: masks whose own estimate of quality is not larger go.
        stability_threshold, stability_offset: masks go whose intersection over union at logits +offset and -offset is
            below the threshold.
        box_nms_threshold: of two masks whose boxes overlap more, the one with the lower estimate goes.
        crop_layers: 1 asks again in 4 crops of the photo, 2 in 16 more, and so on.
        crop_nms_threshold: like box_nms_threshold, between crops, where the smaller crop's mask stays.
        crop_overlap_ratio: overlap of the first layer's crops, as a share of the photo's short side.
        crop_points_downscale: the grid of layer i has its points divided by this to the power of i.
        min_region_area: holes and islands of fewer pixels are filled and dropped; 0 leaves masks as they are.
    """

    points_per_side: int = 32
    pred_iou_threshold: float = 0.88
    stability_threshold: float = 0.95
    stability_offset: float = 1.0
    box_nms_threshold: float = 0.7
    crop_layers: int = 0
    crop_nms_threshold: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_points_downscale: int = 1
    min_region_area: int = 0

    def __post_init__(self) -> None:
        limits = {"points_per_side": (1, 256), "crop_layers": (0, 4), "crop_points_downscale": (1, 16)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"use {name}={value}", f"it is {low} to {high}", "give a number in that range")
        if self.crop_overlap_ratio < 0 or self.crop_overlap_ratio >= 1 or self.min_region_area < 0:
            found = f"crop_overlap_ratio is {self.crop_overlap_ratio}, min_region_area {self.min_region_area}"
            raise InputError("make masks", found, "give a ratio below 1, and an area of 0 or more")

    @classmethod
    def of(cls, recipe: Mapping[str, Any], changes: Mapping[str, Any]) -> AutomaticOptions:
        """A recipe's defaults with the changes that are not None. Raises InputError for an unknown one."""
        known = {field.name for field in fields(cls)}
        given = {name: value for name, value in changes.items() if value is not None}
        unknown = sorted(set(given) - known)
        if unknown:
            raise InputError(f"use the option {unknown[0]}", "there is none", f"choose from {', '.join(sorted(known))}")
        return cls(**{name: value for name, value in recipe.items() if name in known} | given)

    @classmethod
    def read(cls, recipe: Mapping[str, Any], settings: Mapping[str, Any]) -> AutomaticOptions:
        """As `of`; texts, as `--set` gives them, become numbers. Raises InputError for one that is none."""
        kinds = {field.name: int if field.type == "int" else float for field in fields(cls)}
        return cls.of(recipe, {name: _number(name, value, kinds.get(name)) for name, value in settings.items()})


def _number(name: str, value: Any, kind: type | None) -> Any:
    if not isinstance(value, str) or kind is None:
        return value
    try:
        made = kind(value)
    except ValueError:
        made = math.nan
    if not math.isfinite(made):
        found = f"it is no {'whole ' if kind is int else ''}number"
        raise InputError(f"set {name} to {value[:80]!r}", found, f"write it like --set {name}=1")
    return made


def generate(runner: SamRunner, rgb: UInt8, options: AutomaticOptions, progress: Progress | None = None) -> Segments:
    """The masks of a photo (H, W, 3), best first; none is a result too.

    Args:
        runner: SAM.
        rgb: the photo.
        options: see there.
        progress: called with the points asked so far and in all.
    """
    size: Size = (rgb.shape[0], rgb.shape[1])
    found: list[tuple[Candidate, Crop]] = []
    boxes = crop_boxes(size, options.crop_layers, options.crop_overlap_ratio)
    asked = _Counter(sum(_per_side(options, layer) ** 2 for _, layer in boxes), progress)
    for crop, layer in boxes:
        left, top, right, bottom = crop
        runner.embed(np.ascontiguousarray(rgb[top:bottom, left:right]))
        found += [(one, crop) for one in _in_crop(runner, (crop, size), _per_side(options, layer), options, asked)]
    if len(boxes) > 1:
        areas = np.array([(crop[2] - crop[0]) * (crop[3] - crop[1]) for _, crop in found], np.float64)
        moved = np.array([_moved(one, crop) for one, crop in found]).reshape(-1, 4)
        found = [found[i] for i in suppress(moved, 1 / areas, options.crop_nms_threshold)]
    return _cleaned(_segments(found, size), options)


def crop_boxes(size: Size, layers: int, overlap_ratio: float) -> list[tuple[Crop, int]]:
    """(left, top, right, bottom) of every crop and its layer; layer 0 is the photo, layer i has 4^i crops."""
    height, width = size
    made: list[tuple[Crop, int]] = [((0, 0, width, height), 0)]
    for layer in range(1, layers + 1):
        side = 2**layer
        overlap = int(overlap_ratio * min(size) * (2 / side))
        wide, high = (math.ceil((overlap * (side - 1) + extent) / side) for extent in (width, height))
        for across, down in itertools.product(range(side), range(side)):
            left, top = (wide - overlap) * across, (high - overlap) * down
            made.append(((left, top, min(left + wide, width), min(top + high, height)), layer))
    return made


def _per_side(options: AutomaticOptions, layer: int) -> int:
    return max(int(options.points_per_side / options.crop_points_downscale**layer), 1)


class _Counter:
    """Points asked so far."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def add(self, count: int) -> None:
        self._done += count
        if self._progress:
            self._progress(self._done, self._total)


def _in_crop(
    runner: SamRunner, where: tuple[Crop, Size], per_side: int, options: AutomaticOptions, asked: _Counter
) -> list[Candidate]:
    """The masks of one crop, in the crop's frame, each once, best first."""
    crop, size = where
    points = grid(per_side) * np.array([crop[2] - crop[0], crop[3] - crop[1]])
    answers, scaler, start = list[Answer](), runner.scaler(), 0
    for prompted in runner.at_points(points):
        for prompt, mask in _promising(prompted, options):
            x, y = points[start + prompt]
            logits = prompted.masks[prompt, mask]
            part, (outer, inner) = scaler.part(logits, -options.stability_offset), scaler.bounds(logits)
            answers.append(Answer(part, outer, inner, float(prompted.iou[prompt, mask]), (float(x), float(y)), mask))
        start += len(prompted.iou)
        asked.add(len(prompted.iou))
    rules = Rules(options.stability_threshold, options.stability_offset, options.box_nms_threshold)
    return kept(answers, scaler, rules, lambda box: not _touches(box, crop, size))


def _promising(prompted: Prompted, options: AutomaticOptions) -> Iterator[tuple[int, int]]:
    """(prompt, mask) of the several masks whose scores pass, the stability with slack."""
    good = prompted.iou > options.pred_iou_threshold if options.pred_iou_threshold > 0 else prompted.iou == prompted.iou
    if options.stability_offset == 1.0:  # that is what the graph computed
        good &= prompted.stability >= options.stability_threshold - SLACK
    good[:, 0] = False
    return ((int(prompt), int(mask)) for prompt, mask in np.argwhere(good))


def _touches(box: Box, crop: Crop, size: Size) -> bool:
    """Whether a box touches an edge of its crop that is no edge of the photo: its mask goes on outside."""
    moved = (box[0] + crop[0], box[1] + crop[1], box[2] + crop[0], box[3] + crop[1])
    edges = zip(moved, crop, (0, 0, size[1], size[0]), strict=True)
    return any(abs(side - inner) <= EDGE and abs(side - outer) > EDGE for side, inner, outer in edges)


def _moved(one: Candidate, crop: Crop) -> list[int]:
    return [side + crop[i % 2] for i, side in enumerate(one.box)]


def _segments(found: list[tuple[Candidate, Crop]], size: Size) -> Segments:
    points = [(one.answer.point[0] + crop[0], one.answer.point[1] + crop[1]) for one, crop in found]
    return Segments(
        runs=encode_all((one.mask(size, crop) for one, crop in found), size),
        iou=np.array([one.answer.iou for one, _ in found], np.float32),
        stability=np.array([one.stability for one, _ in found], np.float32),
        points=np.array(points, np.float32).reshape(-1, 2),
        answer=np.array([one.answer.number for one, _ in found], np.int8),
    )


def _cleaned(segments: Segments, options: AutomaticOptions) -> Segments:
    """Without small holes and islands; masks that need no change win over those that did."""
    if not options.min_region_area or not len(segments):
        return segments
    size, runs, changed = segments.runs.size, [], []
    for index in range(len(segments)):
        mask = segments.runs.mask(index)
        better = without_small(mask, options.min_region_area)
        changed.append(better is not mask)
        runs.append(encode(better))
    segments = segments.with_runs(runs, size)
    threshold = max(options.box_nms_threshold, options.crop_nms_threshold)
    inner = segments.runs.boxes() - np.array([0, 0, 1, 1])
    return segments.take(suppress(inner, 1.0 - np.array(changed, np.float64), threshold))
