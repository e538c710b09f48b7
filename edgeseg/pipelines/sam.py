"""SAM (Kirillov et al. 2023): an image encoder, and a decoder that makes masks of points and boxes. It has no classes.

As a chain it runs one batch of fixed prompts, each a class of its own, which is what a gate compares;
`edgeseg.segments` runs it for masks of everything.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeseg.backends.base import Array
from edgeseg.chain import Chain, ChainResult, Observer
from edgeseg.errors import BackendError, BundleError
from edgeseg.preprocess import preprocess
from edgeseg.schema import Manifest, Size
from edgeseg.segments.prompts import fixed_prompts


class SamPipeline:
    """See `edgeseg.pipelines.Pipeline`.

    Args:
        manifest: of the bundle; its `images` name the network inputs, its graphs say how many prompts a batch has.
    """

    graphs: tuple[str, ...] = ("sam_encoder", "sam_decoder")
    wanted: tuple[str, ...] = ("prompt_masks",)

    def __init__(self, manifest: Manifest) -> None:
        self._images = manifest.images
        shapes = [spec.shape for graph in manifest.graphs for spec in graph.inputs if spec.name == "points"]
        if not shapes or len(shapes[0]) != 3 or not all(isinstance(extent, int) for extent in shapes[0]):
            found = "no graph of it takes a fixed number of points"
            raise BundleError(f"run a bundle of the family {manifest.family!r}", found, "export it again")
        self._batch, self._points = int(shapes[0][0]), int(shapes[0][1])

    def image_feed(self, rgb: Array, valid: Size, canvas: Size) -> dict[str, Array]:
        """Network inputs of the image, and fixed prompts: points, point_labels, valid."""
        images: dict[str, Array] = {
            name: preprocess(rgb, valid, transform, canvas) for name, transform in self._images.items()
        }
        return {**images, **fixed_prompts(self._batch, self._points, valid)}

    def vocabulary_feed(self, embeddings: Array, overlap: Array) -> dict[str, Array]:
        """Nothing: SAM knows no classes."""
        return {}

    def run(self, chain: Chain, feed: Mapping[str, Array], image: Array, observer: Observer | None) -> ChainResult:
        """One run of the chain."""
        return chain.run(feed, self.wanted, observer)

    def masks(self, tensors: Mapping[str, Array]) -> tuple[Array, Array]:
        """Logits (N, h, w) of the prompts' single masks, and an (N, N) identity. Raises BackendError."""
        finite(tensors, self.wanted)
        logits = tensors["prompt_masks"][:, 0]
        return logits, np.eye(len(logits), dtype=np.float32)


def finite(tensors: Mapping[str, Array], names: tuple[str, ...]) -> None:
    """Raise a BackendError if a tensor holds a value that is no number."""
    for name in names:
        if not np.isfinite(tensors[name]).all():
            found = f"{name} holds values that are not finite numbers"
            raise BackendError("label the image", found, "check the engine with `edgeseg verify`")
