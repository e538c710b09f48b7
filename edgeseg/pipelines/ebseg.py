"""EBSeg (Shan et al., CVPR 2024): two image encoders, a head that gives masks, a CLIP tail, a score per class."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeseg.backends.base import Array
from edgeseg.errors import BackendError, InputError
from edgeseg.pipelines.base import EmbeddedClasses
from edgeseg.placement import Placement
from edgeseg.preprocess import preprocess
from edgeseg.schema import Manifest, Size
from edgeseg.segmentation import Masks


class EBSegPipeline(EmbeddedClasses):
    """See `edgeseg.pipelines.Pipeline`.

    Args:
        manifest: of the bundle; its `images` name the network inputs and how they are made.
    """

    graphs: tuple[str, ...] = ("sam", "clip_trunk", "head", "clip_tail", "score")
    wanted: tuple[str, ...] = ("mask_logits", "class_probs")
    by_row: tuple[str, ...] = ("embedding_b", "embedding_d")

    def __init__(self, manifest: Manifest) -> None:
        self._images = manifest.images

    def image_feed(self, rgb: Array, valid: Size, canvas: Size) -> dict[str, Array]:
        """image_sam (1, 3, H, W) and image_clip (1, 3, h, w), float32."""
        return {name: preprocess(rgb, valid, transform, canvas) for name, transform in self._images.items()}

    def vocabulary_feed(self, embeddings: Array, overlap: Array, top_k: int | None = None) -> dict[str, Array]:
        """Text (C, D) and overlap (C,), float32."""
        if top_k is not None:
            found = "its cost hardly depends on the classes, so it has no pass that rejects some of them"
            raise InputError("use --top-k with EBSeg", found, "leave --top-k out")
        return {"text": np.asarray(embeddings, np.float32), "overlap": np.asarray(overlap, np.float32)}

    def evidence(self, tensors: Mapping[str, Array], names: tuple[str, ...], placement: Placement) -> Masks:
        """Mask logits (Q, H/4, W/4) and class probabilities (Q, C). Raises BackendError if they are not finite."""
        for name in self.wanted:
            if not np.isfinite(tensors[name]).all():
                found = f"{name} holds values that are not finite numbers"
                raise BackendError("label the image", found, "check the engine with `edgeseg verify`")
        return Masks(tensors["mask_logits"][0], tensors["class_probs"][0], names, placement)
