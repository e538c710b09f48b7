"""SAM (Kirillov et al. 2023): an image encoder, and a decoder that makes masks of points and boxes. It has no classes.

As a chain it runs one batch of fixed prompts, each a class of its own, which is what a gate compares;
`edgeseg.segments` runs it for masks of everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from edgeseg.backends.base import Array
from edgeseg.errors import BackendError, BundleError, InputError
from edgeseg.pipelines.base import EmbeddedClasses, Maker, OpenSession
from edgeseg.placement import Placement
from edgeseg.preprocess import preprocess
from edgeseg.schema import Manifest, Size
from edgeseg.segmentation import Masks
from edgeseg.segments.prompts import fixed_prompts

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle
    from edgeseg.vocabulary import Vocabulary

_MOST = 1 << 16  # prompts or patches of a recipe


class PromptedPipeline(EmbeddedClasses):
    """What SAM's bundles and USE's share.

    Args:
        manifest: of the bundle; its `images` name the network inputs, its recipe says how many prompts a batch has.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._images = manifest.images
        prompting = manifest.recipe.get("prompting")
        self._batch, self._points = (whole(manifest, prompting, key) for key in ("batch", "points"))

    def image_feed(self, rgb: Array, valid: Size, canvas: Size) -> dict[str, Array]:
        """Network inputs of the image, and fixed prompts: points, point_labels, valid."""
        images: dict[str, Array] = {
            name: preprocess(rgb, valid, transform, canvas) for name, transform in self._images.items()
        }
        return {**images, **fixed_prompts(self._batch, self._points, valid)}


class SamPipeline(PromptedPipeline):
    """See `edgeseg.pipelines.Pipeline`."""

    graphs: tuple[str, ...] = ("sam_encoder", "sam_decoder")
    wanted: tuple[str, ...] = ("prompt_masks",)
    stored: Mapping[str, tuple[str, int]] = MappingProxyType({})

    def vocabulary_feed(self, embeddings: Array, overlap: Array, top_k: int | None = None) -> dict[str, Array]:
        """Nothing: SAM knows no classes."""
        refuse(top_k)
        return {}

    def reference_feed(self, stored: Mapping[str, Array], canvas: Size) -> dict[str, Array]:
        """The image's inputs."""
        return self.image_feed(stored["image"], canvas, canvas)

    def vocabulary_maker(self, bundle: Bundle, open_session: OpenSession) -> Maker:
        """Refused: there are no classes. Raises BundleError."""
        raise _no_classes(bundle)

    def stand_in(self, bundle: Bundle, count: int) -> Vocabulary:
        """Refused, as `vocabulary_maker`."""
        raise _no_classes(bundle)

    def evidence(self, tensors: Mapping[str, Array], names: tuple[str, ...], placement: Placement) -> Masks:
        """Logits (N, h, w) of the prompts' single masks, each a class of its own. Raises BackendError."""
        finite(tensors, self.wanted)
        logits = tensors["prompt_masks"][:, 0]
        return Masks(logits, np.eye(len(logits), dtype=np.float32), names, placement)


def _no_classes(bundle: Bundle) -> BundleError:
    found = f"a bundle of the family {bundle.manifest.family!r} knows no classes"
    return BundleError("use class names", found, "export a CLIP with --sam, or use `edgeseg segments`")


def whole(manifest: Manifest, table: object, key: str) -> int:
    """A count of the recipe, which may be anything until now. Raises BundleError."""
    value = table.get(key) if isinstance(table, Mapping) else None
    if type(value) is not int or not 0 < value <= _MOST:
        found = f"its recipe has no whole number of {key}"
        raise BundleError(f"run a bundle of the family {manifest.family!r}", found, "export it again")
    return value


def refuse(top_k: int | None) -> None:
    """Raise an InputError if classes are to be rejected early."""
    if top_k is not None:
        found = "each class costs a row of one product, so there is no pass that rejects some of them"
        raise InputError("use --top-k with segments", found, "leave --top-k out")


def finite(tensors: Mapping[str, Array], names: tuple[str, ...]) -> None:
    """Raise a BackendError if a tensor holds a value that is no number."""
    for name in names:
        if not np.isfinite(tensors[name]).all():
            found = f"{name} holds values that are not finite numbers"
            raise BackendError("label the image", found, "check the engine with `edgeseg verify`")
