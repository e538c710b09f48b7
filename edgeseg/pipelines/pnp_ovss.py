"""PnP-OVSS (Luo et al., CVPR 2024) on BLIP: the class names as a caption, what made the image match it, in rounds.

One pass of the chain is one round; `pnp_rounds` has the loop, `pnp_captions` the words, `pnp_maps` what becomes of the
class maps. Nothing is trained for it, and nothing is differentiated: the gradient is part of a graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from edgeseg.backends.base import Array
from edgeseg.chain import Chain
from edgeseg.errors import BackendError, InputError
from edgeseg.pipelines.base import Look, OpenSession, Seen
from edgeseg.pipelines.pnp_captions import WordMaker, Words, captions
from edgeseg.pipelines.pnp_maps import ClassMaps
from edgeseg.pipelines.pnp_rounds import Rounds, start
from edgeseg.pipelines.pnp_settings import Settings, settings
from edgeseg.placement import Placement
from edgeseg.preprocess import preprocess
from edgeseg.schema import Manifest, Size

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle
    from edgeseg.vocabulary import Vocabulary

MAPS = "class_maps_next"
REFERENCE = Settings(background="never")
"""Of reference cases: in a stored label map the number of the background says that rounding decides."""

_STORED = {
    "keep": ("f", 4),
    "input_ids": ("i", 2),
    "attn_mask": ("i", 2),
    "pieces": ("f", 3),
    "weight": ("f", 1),
    "patches": ("f", 1),
    "class_maps": ("f", 2),
}


class PnPPipeline:
    """See `edgeseg.pipelines.Pipeline`.

    Args:
        manifest: of the bundle.
    """

    graphs: tuple[str, ...] = ("blip_vit", "blip_itm_cam", "score")
    wanted: tuple[str, ...] = (MAPS,)
    by_row: tuple[str, ...] = ()
    stored: Mapping[str, tuple[str, int]] = MappingProxyType(_STORED)

    def __init__(self, manifest: Manifest) -> None:
        self._transform = manifest.images["pixels"]
        self._patch, self._tokens = int(manifest.recipe["patch"]), int(manifest.recipe["tokens"])
        height, width = manifest.canvases[0]
        self._cells = (height // self._patch) * (width // self._patch)

    def image_feed(self, rgb: Array, valid: Size, canvas: Size) -> dict[str, Array]:
        """Pixels (1, 3, H, W) and keep (1, 1, h, w), one for every patch, float32; the image is stretched."""
        keep = np.ones((1, 1, canvas[0] // self._patch, canvas[1] // self._patch), np.float32)
        stretched = np.ascontiguousarray(rgb[: valid[0], : valid[1]])
        if valid != canvas:
            wide = Image.fromarray(stretched).resize((canvas[1], canvas[0]), Image.Resampling.BICUBIC)
            stretched = np.asarray(wide)
        return {"pixels": preprocess(stretched, canvas, self._transform, canvas), "keep": keep}

    def reference_feed(self, stored: Mapping[str, Array], canvas: Size) -> dict[str, Array]:
        """A round some way in: patches are left out, and maps have been added up."""
        return self.image_feed(stored["image"], canvas, canvas) | {name: stored[name] for name in self.stored}

    def vocabulary_maker(self, bundle: Bundle, open_session: OpenSession) -> WordMaker:
        """Names as word pieces; there is no text encoder to open."""
        return WordMaker(bundle)

    def stand_in(self, bundle: Bundle, count: int) -> Words:
        """Made-up names."""
        return WordMaker(bundle).vocabulary([f"class {i}" for i in range(count)])

    def vocabulary_feed(self, embeddings: Array, overlap: Array, top_k: int | None = None) -> dict[str, Array]:
        """Refused: the classes are no embeddings."""
        raise _no_embeddings()

    def class_feed(self, vocabulary: Vocabulary) -> dict[str, Array]:
        """All classes in captions, and the state before the first round."""
        made = captions(_words(vocabulary), vocabulary.names, self._tokens)
        return made.feed() | start(made.pieces.shape[1], self._cells, Settings()) | {"weight": np.ones(1, np.float32)}

    def look(self, chain: Chain, image: Mapping[str, Array], look: Look) -> Seen:
        """All rounds. Raises InputError, BackendError."""
        if look.top_k is not None:
            found = "it rejects classes by how well they match the image, not by their number"
            raise InputError("use --top-k with PnP-OVSS", found, "set the least match: --set match=0.5")
        chosen, steps = settings(look.settings), chain.steps(look.observer)
        made = Rounds(steps, image, _words(look.vocabulary), chosen).run()
        maps = made.maps.reshape(-1, *image["keep"].shape[2:])
        evidence = ClassMaps(maps, made.kept, look.vocabulary.names, look.placement, chosen, look.rgb)
        return Seen(evidence, steps.timings_ms)

    def evidence(self, tensors: Mapping[str, Array], names: tuple[str, ...], placement: Placement) -> ClassMaps:
        """Class maps (C, h, w) of every class after one round. Raises BackendError if they are not finite."""
        maps = tensors[MAPS]
        if not np.isfinite(maps).all():
            found = f"{MAPS} holds values that are not finite numbers"
            raise BackendError("label the image", found, "check the engine with `edgeseg verify`")
        grid = placement.canvas[0] // self._patch, placement.canvas[1] // self._patch
        return ClassMaps(maps.reshape(-1, *grid), np.arange(len(maps)), names, placement, REFERENCE)


def _words(vocabulary: Vocabulary) -> Words:
    if not isinstance(vocabulary, Words):
        raise _no_embeddings()
    return vocabulary


def _no_embeddings() -> InputError:
    return InputError("use the vocabulary", "it holds embeddings, and PnP-OVSS reads names", "give the class names")
