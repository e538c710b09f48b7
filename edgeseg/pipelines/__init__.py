"""One module per family: how an image and a vocabulary become the chain's inputs, and its outputs a label map."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, cast

from edgeseg.errors import BundleError

if TYPE_CHECKING:
    from edgeseg.backends.base import Array
    from edgeseg.chain import Chain, ChainResult, Observer
    from edgeseg.schema import Manifest, Size

PIPELINES = {
    "ebseg": "edgeseg.pipelines.ebseg:EBSegPipeline",
    "sam": "edgeseg.pipelines.sam:SamPipeline",
    "use": "edgeseg.pipelines.use:UsePipeline",
}


class Pipeline(Protocol):
    """What a family adds to the chain of its graphs.

    Attributes:
        graphs: names of the graphs that every image runs through.
        wanted: the tensors that `masks` needs.
    """

    graphs: tuple[str, ...]
    wanted: tuple[str, ...]

    def image_feed(self, rgb: Array, valid: Size, canvas: Size) -> dict[str, Array]:
        """Network inputs of a resized image. `rgb`: (H, W, 3) uint8, at least `valid` in size."""
        ...

    def vocabulary_feed(self, embeddings: Array, overlap: Array) -> dict[str, Array]:
        """Inputs that stand for the classes: (C, D) float32 unit rows and (C,) float32 flags."""
        ...

    def run(self, chain: Chain, feed: Mapping[str, Array], image: Array, observer: Observer | None) -> ChainResult:
        """The tensors `wanted`. Most families run the chain once; `image` is the (H, W, 3) photo, not resized."""
        ...

    def masks(self, tensors: Mapping[str, Array]) -> tuple[Array, Array]:
        """Mask logits (Q, h, w) and class probabilities (Q, C), float32 and finite. Raises BackendError."""
        ...


def get_pipeline(manifest: Manifest) -> Pipeline:
    """The pipeline of a bundle's family. Raises BundleError for a family this version does not know."""
    if manifest.family not in PIPELINES:
        found = f"this version knows {', '.join(PIPELINES)}"
        raise BundleError(f"run a bundle of the family {manifest.family!r}", found, "install a newer edgeseg")
    module, attribute = PIPELINES[manifest.family].split(":")
    return cast(Pipeline, getattr(importlib.import_module(module), attribute)(manifest))
