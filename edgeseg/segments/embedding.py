"""USE's graphs run apart: patches embedded once an image, segments as means of patches, scored by text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgeseg.backends.base import Array, Tensor
from edgeseg.chain import Chain, Observer
from edgeseg.errors import BackendError, BundleError
from edgeseg.placement import Placement
from edgeseg.segments.pooling import AreaPooling
from edgeseg.segments.runs import Runs

if TYPE_CHECKING:
    from edgeseg.schema import Manifest

Float32 = npt.NDArray[np.float32]

ENCODER, HEAD, SCORE = "use_encoder", "use_head", "score"


class SegmentEmbedder:
    """Embeds the segments of a photo.

    Args:
        chain: holds the graphs use_encoder, use_head and score.
        manifest: of the bundle.
        observer: hears of the graphs' steps.

    Attributes:
        steps: of the chain, which knows how long the graphs took.
    """

    def __init__(self, chain: Chain, manifest: Manifest, observer: Observer | None = None) -> None:
        if ENCODER not in {link.graph.name for link in chain.order}:
            todo = "export a CLIP checkpoint with --sam"
            raise BundleError("embed segments", f"a bundle of the family {manifest.family!r} cannot", todo)
        self.steps = chain.steps(observer)
        head = self.steps.graph(HEAD)
        self._patches = next(int(spec.shape[1]) for spec in head.inputs if spec.name == "segment_weights")
        self._most = head.axes["S"][2]

    def embeddings(self, images: Mapping[str, Array], runs: Runs, placement: Placement) -> Float32:
        """(N + 1, D) unit rows, the last one of the photo as one segment; an empty mask's row is zero.

        Args:
            images: the network inputs of use_encoder, (1, 3, h, w), by name; others may be among them.
            runs: N masks at the size of the photo.
            placement: of the photo.
        """
        pooling = AreaPooling(placement, self._patches)
        weights = np.concatenate((pooling.weights(runs), pooling.whole()))
        patches = self.steps.run(ENCODER, self.steps.upload(self._own(images)))
        parts = [weights[start : start + self._most] for start in range(0, len(weights), self._most)]
        made = [self._run(HEAD, patches, {"segment_weights": part})["segment_embedding"] for part in parts]
        rows = np.concatenate([self.steps.download(tensor) for tensor in made]).astype(np.float32)
        if not np.isfinite(rows).all():
            found = "an embedding holds values that are not finite numbers"
            raise BackendError("embed segments", found, "check the engine with `edgeseg verify`")
        rows[weights.sum(axis=1) == 0] = 0
        return rows

    def scored(self, images: Mapping[str, Array], runs: Runs, placement: Placement, text: Array) -> Float32:
        """(N + 1, C) class probabilities, the last row of the photo as one segment. `text`: (C, D) unit rows."""
        rows = self.embeddings(images, runs, placement)
        parts = [rows[start : start + self._most] for start in range(0, len(rows), self._most)]
        classes = self.steps.upload({"text": text})
        made = [self._run(SCORE, classes, {"segment_embedding": part})["class_probs"] for part in parts]
        return np.concatenate([self.steps.download(tensor)[0] for tensor in made])

    def _own(self, images: Mapping[str, Array]) -> dict[str, Array]:
        return {spec.name: images[spec.name] for spec in self.steps.graph(ENCODER).inputs}

    def _run(self, graph: str, there: Mapping[str, Tensor], arrays: dict[str, Array]) -> dict[str, Tensor]:
        return self.steps.run(graph, {**there, **self.steps.upload(arrays)})
