"""One module per family: how an image and a vocabulary become the chain's inputs, and its outputs a label map."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, cast

from edgeseg.errors import BundleError

if TYPE_CHECKING:
    from edgeseg.backends.base import Array
    from edgeseg.bundle import Bundle
    from edgeseg.chain import Chain
    from edgeseg.pipelines.base import Look, Maker, OpenSession, Seen
    from edgeseg.placement import Placement
    from edgeseg.schema import Manifest, Size
    from edgeseg.segmentation import Evidence
    from edgeseg.vocabulary import Vocabulary

PIPELINES = {
    "ebseg": "edgeseg.pipelines.ebseg:EBSegPipeline",
    "lmseg": "edgeseg.pipelines.lmseg:LMSegPipeline",
    "pnp-ovss": "edgeseg.pipelines.pnp_ovss:PnPPipeline",
    "sam": "edgeseg.pipelines.sam:SamPipeline",
    "use": "edgeseg.pipelines.use:UsePipeline",
}


class Pipeline(Protocol):
    """What a family adds to the chain of its graphs.

    Attributes:
        graphs: names of the graphs that every image runs through.
        wanted: the tensors that `evidence` needs.
        by_row: the tensors whose rows each follow from a thresholded mask, which the gate judges row by row.
        stored: what a reference case holds beside the image and its labels: array → its dtype's kind, its axes.
    """

    graphs: tuple[str, ...]
    wanted: tuple[str, ...]
    by_row: tuple[str, ...]
    stored: Mapping[str, tuple[str, int]]

    def image_feed(self, rgb: Array, valid: Size, canvas: Size) -> dict[str, Array]:
        """Network inputs of a resized image. `rgb`: (H, W, 3) uint8, at least `valid` in size."""
        ...

    def vocabulary_feed(self, embeddings: Array, overlap: Array, top_k: int | None = None) -> dict[str, Array]:
        """Inputs that stand for the classes: (C, D) float32 unit rows and (C,) float32 flags.

        Args:
            embeddings: of the classes.
            overlap: 1 for a class that was trained.
            top_k: classes that a cheap pass leaves for the expensive one; None leaves all that the graphs take.

        Raises:
            InputError: the family has no such pass, or `top_k` is not positive.
        """
        ...

    def vocabulary_maker(self, bundle: Bundle, open_session: OpenSession) -> Maker:
        """What turns class names into a vocabulary; `open_session` opens a text encoder where the family has one."""
        ...

    def stand_in(self, bundle: Bundle, count: int) -> Vocabulary:
        """So many classes that stand in for real ones where only time is measured; no text encoder runs."""
        ...

    def class_feed(self, vocabulary: Vocabulary) -> dict[str, Array]:
        """Inputs that stand for the classes in one run of the chain. Raises InputError for another family's."""
        ...

    def reference_feed(self, stored: Mapping[str, Array], canvas: Size) -> dict[str, Array]:
        """The chain's inputs of a reference case as the bundle holds it, made as for a photo."""
        ...

    def look(self, chain: Chain, image: Mapping[str, Array], look: Look) -> Seen:
        """Run the graphs as often as the family does. `image`: from `image_feed`. Raises InputError, BackendError."""
        ...

    def evidence(self, tensors: Mapping[str, Array], names: tuple[str, ...], placement: Placement) -> Evidence:
        """What the class scores are computed from. Raises BackendError where a tensor is not finite."""
        ...


def get_pipeline(manifest: Manifest) -> Pipeline:
    """The pipeline of a bundle's family. Raises BundleError for a family this version does not know."""
    if manifest.family not in PIPELINES:
        found = f"this version knows {', '.join(PIPELINES)}"
        raise BundleError(f"run a bundle of the family {manifest.family!r}", found, "install a newer edgeseg")
    module, attribute = PIPELINES[manifest.family].split(":")
    return cast(Pipeline, getattr(importlib.import_module(module), attribute)(manifest))
