"""LMSeg and CAT-Seg: the image as sliding windows through the encoders at once, a ranking of classes, an aggregation.

A canvas of one window takes the whole image as the authors' code does without sliding: normalised, padded with zeros to
a multiple of 32, stretched, and its padding never removed. A larger canvas is the image stretched over it, cut into
windows; the whole image, stretched to one window, comes last.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgeseg.backends.base import Array
from edgeseg.bilinear import resample, taps
from edgeseg.errors import BackendError, InputError
from edgeseg.pipelines.base import EmbeddedClasses
from edgeseg.pipelines.windows import Windows, WindowScores
from edgeseg.placement import Placement
from edgeseg.schema import ImageTransform, Manifest, Size

Float32 = npt.NDArray[np.float32]

_DIVISOR = 32


class LMSegPipeline(EmbeddedClasses):
    """See `edgeseg.pipelines.Pipeline`.

    Args:
        manifest: of the bundle; its recipe has the windows and the sides of the network inputs.
    """

    wanted: tuple[str, ...] = ("logits", "picked")

    def __init__(self, manifest: Manifest) -> None:
        self._images, recipe = manifest.images, manifest.recipe
        self._window, self._stride = int(recipe["window"]), int(recipe["stride"])
        self._sides: dict[str, int] = recipe["sides"]
        self._limit = int(recipe["classes_at_once"])
        sam = ("sam",) if "image_sam" in self._images else ()
        self.graphs: tuple[str, ...] = ("clip", *sam, "rank", "aggregate")

    def image_feed(self, rgb: Array, valid: Size, canvas: Size) -> dict[str, Array]:
        """image_clip (B, 3, S, S) and, for LMSeg, image_sam; float32, B views."""
        image = rgb[: valid[0], : valid[1]].transpose(2, 0, 1).astype(np.float32)
        return {name: self._views(image, transform, canvas, name) for name, transform in self._images.items()}

    def vocabulary_feed(self, embeddings: Array, overlap: Array, top_k: int | None = None) -> dict[str, Array]:
        """Text (C, D), slots (S,) for the S classes that are aggregated, and shared (1,): see `Rank` of the export."""
        if top_k is not None and top_k < 1:
            raise InputError(f"use --top-k {top_k}", "that leaves no class", "give at least 1")
        count = min(len(embeddings), self._limit, top_k or self._limit)
        return {
            "text": np.asarray(embeddings, np.float32),
            "slots": np.zeros(count, np.float32),
            "shared": np.array([top_k is not None], np.float32),
        }

    def evidence(self, tensors: Mapping[str, Array], names: tuple[str, ...], placement: Placement) -> WindowScores:
        """The logits of the views' classes. Raises BackendError if they are not finite."""
        if not np.isfinite(tensors["logits"]).all():
            found = "logits holds values that are not finite numbers"
            raise BackendError("label the image", found, "check the engine with `edgeseg verify`")
        windows = Windows(placement.canvas, self._window, self._stride)
        return WindowScores(tensors["logits"], tensors["picked"], names, placement, windows)

    def _views(self, image: Float32, transform: ImageTransform, canvas: Size, name: str) -> Array:
        side = (self._sides[name], self._sides[name])
        mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (transform.mean, transform.std))
        if canvas == (self._window, self._window):
            return stretch(_padded((image - mean) / std), side)[None]
        whole = stretch(image, canvas)
        crops = [whole[:, y : y + self._window, x : x + self._window] for y, x in self._corners(canvas)]
        views = [*crops, stretch(image, (self._window, self._window))]
        return np.stack([stretch((view - mean) / std, side) for view in views])

    def _corners(self, canvas: Size) -> list[tuple[int, int]]:
        return Windows(canvas, self._window, self._stride).corners


def stretch(planes: Float32, size: Size) -> Float32:
    """(3, H, W) resized to `size`, bilinear and without antialiasing, as torch's `F.interpolate` does."""
    for axis, extent in ((2, size[1]), (1, size[0])):
        length = planes.shape[axis]
        if length != extent:
            planes = resample(planes, axis, taps(length, extent, length / extent))
    return np.ascontiguousarray(planes)


def _padded(planes: Float32) -> Float32:
    height, width = (-extent % _DIVISOR for extent in planes.shape[1:])
    return np.pad(planes, ((0, 0), (0, height), (0, width)))
