"""USE (Wang et al., CVPR 2024): SAM's masks of everything, each embedded by the patches it covers, scored by text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgeseg.backends.base import Array
from edgeseg.chain import Chain
from edgeseg.pipelines.base import Look, Seen, no_settings
from edgeseg.pipelines.sam import PromptedPipeline, finite, refuse, whole
from edgeseg.placement import Placement
from edgeseg.schema import Manifest, Size
from edgeseg.segmentation import Masks
from edgeseg.segments.automatic import AutomaticOptions, generate
from edgeseg.segments.embedding import SegmentEmbedder
from edgeseg.segments.pooling import fixed_weights
from edgeseg.segments.sam import SamRunner, small_masks

if TYPE_CHECKING:
    from edgeseg.segments.segments import Segments

SHARPNESS = np.float32(100)
"""What a mask's logits are multiplied by: a pixel is inside a segment or not, and not by half."""

WHOLE = np.float32(1e-4)
"""Weight of the photo as one segment: it decides where no segment is, and hardly anything elsewhere."""


class UsePipeline(PromptedPipeline):
    """See `edgeseg.pipelines.Pipeline`. As a chain it embeds fixed segments, which is what a gate compares.

    Args:
        manifest: of the bundle.
    """

    graphs: tuple[str, ...] = ("sam_encoder", "sam_decoder", "use_encoder", "use_head", "score")
    wanted: tuple[str, ...] = ("prompt_masks", "class_probs")

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest)
        self._manifest = manifest
        self._patches = whole(manifest, manifest.recipe, "patches")

    def image_feed(self, rgb: Array, valid: Size, canvas: Size) -> dict[str, Array]:
        """Network inputs of the image, fixed prompts, and fixed segments (batch, L)."""
        weights = fixed_weights(self._batch, self._patches)
        return {**super().image_feed(rgb, valid, canvas), "segment_weights": weights}

    def vocabulary_feed(self, embeddings: Array, overlap: Array, top_k: int | None = None) -> dict[str, Array]:
        """Text (C, D) float32."""
        refuse(top_k)
        return {"text": np.asarray(embeddings, np.float32)}

    def evidence(self, tensors: Mapping[str, Array], names: tuple[str, ...], placement: Placement) -> Masks:
        """Logits (Q, h, w) and class probabilities (Q, C). Raises BackendError if they are not finite."""
        finite(tensors, self.wanted)
        return Masks(tensors["prompt_masks"][:, 0], tensors["class_probs"][0], names, placement)

    def look(self, chain: Chain, image: Mapping[str, Array], look: Look) -> Seen:
        """Masks of everything in the photo, each once, and their classes. Raises InputError, BackendError."""
        no_settings(look)
        vocabulary, manifest = look.vocabulary, self._manifest
        text = self.vocabulary_feed(vocabulary.embeddings, vocabulary.overlap, look.top_k)["text"]
        runner = SamRunner(chain, manifest, look.observer)
        # At the size of small masks: crops and the small-region rule are for `edgeseg segments`.
        changes = {"crop_layers": 0, "min_region_area": 0}
        options = AutomaticOptions.of(manifest.recipe.get("automatic", {}), changes)
        segments = generate(runner, look.rgb, options)
        embedder = SegmentEmbedder(chain, manifest, look.observer)
        probabilities = embedder.scored(image["image_clip"], segments.runs, runner.placement, text)
        logits, probabilities = self._composable(runner, segments, probabilities)
        tensors = {"prompt_masks": logits[:, None], "class_probs": probabilities[None]}
        evidence = self.evidence(tensors, vocabulary.names, look.placement)
        return Seen(evidence, runner.steps.timings_ms | embedder.steps.timings_ms)

    def _composable(self, runner: SamRunner, segments: Segments, probabilities: Array) -> tuple[Array, Array]:
        """Rows whose sum is the score of a pixel: the segments, and the photo as one; (Q, h, w) and (Q, C)."""
        logits = small_masks(runner, segments) * SHARPNESS
        keep = segments.runs.areas() > 0
        probabilities = probabilities * np.append(keep, 1)[:, None].astype(np.float32)
        if self._manifest.recipe.get("uncovered") == "whole":
            probabilities[-1] *= WHOLE
        else:
            probabilities[-1] = 0
        everywhere = np.full((1, *logits.shape[1:]), SHARPNESS, np.float32)
        return np.concatenate((logits, everywhere)), probabilities
