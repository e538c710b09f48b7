"""The segments of one photo: SAM's or someone else's, with their embeddings where the bundle has what embeds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeseg.backends.base import Array
from edgeseg.chain import Chain, Observer
from edgeseg.errors import InputError
from edgeseg.placement import place
from edgeseg.preprocess import preprocess, resize_rgb
from edgeseg.schema import Manifest, size_text
from edgeseg.segments.automatic import AutomaticOptions, Progress, generate
from edgeseg.segments.embedding import SegmentEmbedder
from edgeseg.segments.prompted import Prompts, at_prompts
from edgeseg.segments.runs import Runs
from edgeseg.segments.sam import IMAGE as SAM_IMAGE
from edgeseg.segments.sam import SamRunner
from edgeseg.segments.segments import Segments, given
from edgeseg.vocabulary.recipe import TextRecipe


@dataclass(frozen=True)
class Wish:
    """How segments are made.

    Attributes:
        masks: someone else's, at the size of the photo; None asks SAM.
        options: changes to the recipe's `AutomaticOptions`, by name.
        progress: called with the points asked so far and in all.
        prompts: what SAM is asked; None asks for everything.
    """

    masks: Runs | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    progress: Progress | None = None
    prompts: Prompts | None = None


def find_segments(
    chain: Chain, manifest: Manifest, rgb: npt.NDArray[np.uint8], wish: Wish, observer: Observer | None = None
) -> Segments:
    """The segments of a photo (H, W, 3), with embeddings if the bundle's family is USE.

    Raises:
        InputError: an option cannot be used, a prompt is not on the photo, or the masks are of another size.
        BundleError: the bundle has no SAM.
    """
    segments = _asked(chain, manifest, rgb, wish, observer)
    if "image_clip" not in manifest.images:
        return segments
    placement = place((rgb.shape[0], rgb.shape[1]), manifest.canvases, manifest.recipe)
    small = resize_rgb(rgb, placement.valid)
    images: dict[str, Array] = {
        name: preprocess(small, placement.valid, transform, placement.canvas)
        for name, transform in manifest.images.items()
        if name != SAM_IMAGE
    }
    rows = SegmentEmbedder(chain, manifest, observer).embeddings(images, segments.runs, placement)
    encoder = TextRecipe.read(manifest.recipe).encoder(manifest.source.sha256)
    return replace(segments, embeddings=rows[:-1], encoder=encoder)


def _asked(
    chain: Chain, manifest: Manifest, rgb: npt.NDArray[np.uint8], wish: Wish, observer: Observer | None
) -> Segments:
    """Without embeddings."""
    if wish.masks is not None:
        if wish.masks.size != rgb.shape[:2]:
            found = f"they are {size_text(wish.masks.size)}, and the photo is {size_text((rgb.shape[0], rgb.shape[1]))}"
            raise InputError("use the masks", found, "make the masks of this photo, at its own size")
        return given(wish.masks)
    runner = SamRunner(chain, manifest, observer)
    if wish.prompts is not None:
        return at_prompts(runner, rgb, wish.prompts)
    options = AutomaticOptions.of(manifest.recipe.get("automatic", {}), wish.options)
    return generate(runner, rgb, options, wish.progress)
