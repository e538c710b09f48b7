"""USE's graphs run apart: patches embedded once an image, segments as means of patches, scored by text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgeseg.backends.base import Array
from edgeseg.chain import Chain
from edgeseg.errors import BackendError, BundleError
from edgeseg.placement import Placement
from edgeseg.segments.pooling import AreaPooling
from edgeseg.segments.runs import Runs
from edgeseg.segments.sam import run_graph

if TYPE_CHECKING:
    from edgeseg.schema import Manifest

Float32 = npt.NDArray[np.float32]


class SegmentEmbedder:
    """Embeds the segments of a photo.

    Args:
        chain: holds the graphs use_encoder, use_head and score.
        manifest: of the bundle.
    """

    def __init__(self, chain: Chain, manifest: Manifest) -> None:
        self._links = {link.graph.name: link for link in chain.order}
        if "use_encoder" not in self._links:
            todo = "export a CLIP checkpoint with --sam"
            raise BundleError("embed segments", f"a bundle of the family {manifest.family!r} cannot", todo)
        head = self._links["use_head"].graph
        self._patches = next(int(spec.shape[1]) for spec in head.inputs if spec.name == "segment_weights")
        self._most = head.axes["S"][2]

    def embeddings(self, image: Array, runs: Runs, placement: Placement) -> Float32:
        """(N + 1, D) unit rows, the last one of the photo as one segment; an empty mask's row is zero.

        Args:
            image: (1, 3, h, w), the network input image_clip.
            runs: N masks at the size of the photo.
            placement: of the photo.
        """
        pooling = AreaPooling(placement, self._patches)
        weights = np.concatenate((pooling.weights(runs), pooling.whole()))
        encoder, head = self._links["use_encoder"], self._links["use_head"]
        patches = run_graph(encoder.session, encoder.graph, {"image_clip": image})
        parts = [weights[start : start + self._most] for start in range(0, len(weights), self._most)]
        made = [
            head.session.download(
                run_graph(head.session, head.graph, {"segment_weights": part}, patches)["segment_embedding"]
            )
            for part in parts
        ]
        rows = np.concatenate(made).astype(np.float32)
        if not np.isfinite(rows).all():
            found = "an embedding holds values that are not finite numbers"
            raise BackendError("embed segments", found, "check the engine with `edgeseg verify`")
        rows[weights.sum(axis=1) == 0] = 0
        return rows

    def scored(self, image: Array, runs: Runs, placement: Placement, text: Array) -> Float32:
        """(N + 1, C) class probabilities, the last row of the photo as one segment. `text`: (C, D) unit rows."""
        score = self._links["score"]
        rows = self.embeddings(image, runs, placement)
        parts = [rows[start : start + self._most] for start in range(0, len(rows), self._most)]
        feeds = [{"segment_embedding": part, "text": text} for part in parts]
        probabilities = [
            score.session.download(run_graph(score.session, score.graph, feed)["class_probs"]) for feed in feeds
        ]
        return np.concatenate([part[0] for part in probabilities])
