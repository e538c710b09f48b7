"""The families that export knows: one module each, which offers what `Family` lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from edgeseg.errors import InputError
from edgeseg.schema import ImageTransform, Size

from . import ebseg, lmseg, pnp_ovss, sam, use
from .checkpoint import StateDict
from .graphs import GraphPlan
from .recipe import Recipe
from .text_encoders import Tower


class Family(Protocol):
    """What a family's module offers; `model` is whatever its `load` gives."""

    KEYS: str
    """How its checkpoints are known, for messages: "its keys begin with ..."."""

    ENCODER: str
    """Whose sizes choose a recipe, for messages: "CLIP", or "SAM" where there is no CLIP."""

    def recognises(self, state: Mapping[str, Tensor]) -> bool:
        """Whether these tensors look like this family, of any size."""
        ...

    def clip_sizes(self, state: Mapping[str, Tensor]) -> tuple[int, int]:
        """(width, patch) of CLIP, or of `ENCODER` if that is another, by which a recipe is chosen."""
        ...

    def fits(self, state: Mapping[str, Tensor], recipe: Recipe) -> bool:
        """Whether a recipe of this family fits tensors of CLIP's sizes."""
        ...

    def check_canvas(self, canvas: Size) -> None:
        """Refuse a canvas that cannot be. Raises InputError."""
        ...

    def load(self, path: Path, state: StateDict, recipe: Recipe) -> Any:
        """The model with the checkpoint's weights, in eval mode. Raises CheckpointError."""
        ...

    def embedding(self, model: Any) -> int:
        """D of the class embeddings."""
        ...

    def text_tower(self, model: Any) -> Tower:
        """What the checkpoint holds of a text encoder; None where it has nothing."""
        ...

    def transforms(self, recipe: Recipe) -> dict[str, ImageTransform]:
        """The network inputs made of the image, by name."""
        ...

    def resolved(self, model: Any, recipe: Recipe) -> dict[str, Any]:
        """What the bundle's recipe holds for this family alone, as JSON."""
        ...

    def plans(self, model: Any, recipe: Recipe, canvas: Size) -> list[GraphPlan]:
        """The graphs of one canvas, in the order they run, those that fit any canvas among them."""
        ...

    def case(self, model: Any, image: npt.NDArray[np.uint8], text: Tensor, number: int) -> dict[str, Any]:
        """A reference case as the bundle keeps it, of which `Pipeline.reference_feed` makes the chain's inputs.

        `text`: (C, D) embeddings of classes.
        """
        ...

    def labels(self, values: Mapping[str, Tensor], canvas: Size) -> npt.NDArray[np.uint16]:
        """The label map (H, W) of a reference image, as the authors compose it; see `reference.labels`."""
        ...


FAMILIES: dict[str, Family] = {"ebseg": ebseg, "lmseg": lmseg, "pnp-ovss": pnp_ovss, "sam": sam, "use": use}


def check_canvases(canvases: list[Size], families: Iterable[str]) -> None:
    """Refuse canvases that none of these families takes. Raises the first one's InputError."""
    refused = None
    for name in families:
        try:
            for canvas in canvases:
                FAMILIES[name].check_canvas(canvas)
        except InputError as error:
            refused = refused or error
        else:
            return
    if refused:
        raise refused
