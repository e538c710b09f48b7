"""USE (Wang et al., CVPR 2024): SAM's masks of everything, each embedded by the patches it covers, scored by text."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeseg.backends.base import Array
from edgeseg.chain import Chain
from edgeseg.pipelines.base import Look, Seen
from edgeseg.pipelines.sam import PromptedPipeline, finite, refuse, whole
from edgeseg.placement import Placement
from edgeseg.schema import Manifest, Size
from edgeseg.segmentation import Masks
from edgeseg.segments.aggregate import ClassedSegments
from edgeseg.segments.automatic import AutomaticOptions, generate
from edgeseg.segments.embedding import SegmentEmbedder
from edgeseg.segments.pooling import fixed_weights
from edgeseg.segments.sam import SamRunner


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
        """Masks of everything in the photo and their classes; the settings are `AutomaticOptions`.

        Raises InputError, BackendError.
        """
        recipe, vocabulary = self._manifest.recipe, look.vocabulary
        text = self.vocabulary_feed(vocabulary.embeddings, vocabulary.overlap, look.top_k)["text"]
        runner = SamRunner(chain, self._manifest, look.observer)
        options = AutomaticOptions.read(recipe.get("automatic", {}), look.settings)
        segments = generate(runner, look.rgb, options)
        embedder = SegmentEmbedder(chain, self._manifest, look.observer)
        probabilities = embedder.scored(image, segments.runs, look.placement, text)
        finite({"class_probs": probabilities}, ("class_probs",))
        rest = probabilities[-1] if recipe.get("uncovered") == "whole" else None
        found = ClassedSegments(segments.runs, probabilities[:-1], rest, vocabulary.names, look.placement)
        return Seen(found, runner.steps.timings_ms | embedder.steps.timings_ms)
