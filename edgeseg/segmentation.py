"""What a segmenter gives: a label map with names and areas, or what it is made of (query masks, for EBSeg)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgeseg.compose import NONE_LABEL, Composition, compose, compose_scored, score_tiles
from edgeseg.placement import Placement


class Evidence(Protocol):
    """What an image's class scores are computed from: small, where all scores of all pixels would fill gigabytes.

    Attributes:
        names: C class names.
        placement: where the image lies on the canvas.
    """

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def placement(self) -> Placement: ...

    def compose(self, threshold: float | None = None) -> Composition:
        """The label map; with a threshold also the best scores, and no label where they are below it."""
        ...

    def scores(self) -> Iterator[tuple[slice, slice, npt.NDArray[np.float32]]]:
        """Every class's score at every pixel of the image, as (y, x, (rows, columns, C) float32) tiles."""
        ...

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What the scores are computed from, as it is written to disk (docs/outputs.md)."""
        ...


@dataclass(frozen=True, eq=False)
class Masks:
    """Query masks and what they show.

    The score of class c at a pixel is the sum over q of `class_probs[q, c] * sigmoid(logits[q])`.

    Attributes:
        logits: (Q, h, w) float32, at a quarter of the canvas for EBSeg.
        class_probs: (Q, C) float32.
        names: C class names.
        valid: (h, w); `logits[:, :h, :w]` covers the image, what lies beyond is padding.
        placement: where the image lies on the canvas.
    """

    logits: npt.NDArray[np.float32]
    class_probs: npt.NDArray[np.float32]
    names: tuple[str, ...]
    placement: Placement

    @property
    def valid(self) -> tuple[int, int]:
        """See the class."""
        sides = zip(self.logits.shape[1:], self.placement.valid, self.placement.canvas, strict=True)
        height, width = (-(-cells * valid // canvas) for cells, valid, canvas in sides)
        return height, width

    def compose(self, threshold: float | None = None) -> Composition:
        """See `Evidence`."""
        if threshold is None:
            return compose(self.logits, self.class_probs, self.placement)
        return compose_scored(self.logits, self.class_probs, self.placement, threshold)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """See `Evidence`."""
        return {"logits": self.logits, "class_probs": self.class_probs}

    def scores(self) -> Iterator[tuple[slice, slice, npt.NDArray[np.float32]]]:
        """Every class's score at every pixel of the image, as (y, x, (rows, columns, C) float32) tiles."""
        return score_tiles(self.logits, self.class_probs, self.placement)


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A label map.

    Attributes:
        labels: (H, W) uint16, index into `names`; `NONE_LABEL` (65535) where the best score is below the threshold.
        names: C class names.
        areas: name → pixels.
        exact: the image went in as the authors' code would have taken it; if not, `reason` says what differs.
        notes: conversions that were made when the image was read.
        timings_ms: wall time of each step, and of each graph where they run one after the other.
        image: (H, W, 3) uint8 RGB, as it was read.
        scores: (H, W) float32, the winner's score; only with a threshold.
        masks: what the labels were made from.
    """

    labels: npt.NDArray[np.uint16]
    names: tuple[str, ...]
    areas: dict[str, int]
    exact: bool
    reason: str | None
    image: npt.NDArray[np.uint8]
    masks: Evidence
    notes: tuple[str, ...] = ()
    timings_ms: dict[str, float] = field(default_factory=dict)
    scores: npt.NDArray[np.float32] | None = None

    @property
    def none_pixels(self) -> int:
        """Pixels that belong to none of the classes."""
        return int((self.labels == NONE_LABEL).sum())

    def overlay(self) -> Image.Image:
        """The image with the classes' colours over it, and a legend below."""
        from edgeseg.overlay import draw_overlay

        return draw_overlay(self)

    def save(self, folder: Path | str, stem: str = "result") -> list[Path]:
        """Write label map, overlay and JSON into the folder; the paths written. Raises StorageError."""
        from edgeseg.outputs import OutputOptions, write_outputs

        return write_outputs(self, Path(folder), stem, OutputOptions())
