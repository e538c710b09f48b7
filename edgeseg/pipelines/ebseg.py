"""EBSeg (Shan et al., CVPR 2024): two image encoders, a head that gives masks, a CLIP tail, a score per class."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeseg.backends.base import Array
from edgeseg.chain import Chain, ChainResult, Observer
from edgeseg.errors import BackendError
from edgeseg.preprocess import preprocess
from edgeseg.schema import Manifest, Size


class EBSegPipeline:
    """See `edgeseg.pipelines.Pipeline`.

    Args:
        manifest: of the bundle; its `images` name the network inputs and how they are made.
    """

    graphs: tuple[str, ...] = ("sam", "clip_trunk", "head", "clip_tail", "score")
    wanted: tuple[str, ...] = ("mask_logits", "class_probs")

    def __init__(self, manifest: Manifest) -> None:
        self._images = manifest.images

    def image_feed(self, rgb: Array, valid: Size, canvas: Size) -> dict[str, Array]:
        """image_sam (1, 3, H, W) and image_clip (1, 3, h, w), float32."""
        return {name: preprocess(rgb, valid, transform, canvas) for name, transform in self._images.items()}

    def vocabulary_feed(self, embeddings: Array, overlap: Array) -> dict[str, Array]:
        """Text (C, D) and overlap (C,), float32."""
        return {"text": np.asarray(embeddings, np.float32), "overlap": np.asarray(overlap, np.float32)}

    def run(self, chain: Chain, feed: Mapping[str, Array], image: Array, observer: Observer | None) -> ChainResult:
        """One run of the chain."""
        return chain.run(feed, self.wanted, observer)

    def masks(self, tensors: Mapping[str, Array]) -> tuple[Array, Array]:
        """Mask logits (Q, H/4, W/4) and class probabilities (Q, C). Raises BackendError if they are not finite."""
        for name in self.wanted:
            if not np.isfinite(tensors[name]).all():
                found = f"{name} holds values that are not finite numbers"
                raise BackendError("label the image", found, "check the engine with `edgeseg verify`")
        return tensors["mask_logits"][0], tensors["class_probs"][0]
