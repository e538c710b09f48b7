"""A SAM checkpoint becomes a bundle of its two graphs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgeseg.bundle import Bundle
from edgeseg.errors import CheckpointError, InputError
from edgeseg.schema import Size, Source

from . import sam
from .checkpoint import StateDict, file_digest
from .recipe import presets
from .sam_recipe import SamRecipe
from .segment_bundle import Progress, SegmentExport, check_sizes, write_bundle


def choose(path: Path, wanted: str | None, state: Mapping[str, Tensor]) -> SamRecipe:
    """The preset that fits the tensors. Raises CheckpointError if none does, InputError if `wanted` is unknown."""
    known = presets(SamRecipe)
    names = ", ".join(recipe.name for recipe in known)
    if wanted not in {None, "sam", *(recipe.name for recipe in known)}:
        found = "the checkpoint is a SAM, and that is no preset of SAM"
        raise InputError(f"use --family {wanted}", found, f"choose from {names}, or give the CLIP file and --sam")
    width = sam.encoder_width(state) if "image_encoder.neck.0.weight" in state else 0
    fitting = [recipe for recipe in known if recipe.encoder_width == width]
    if wanted not in (None, "sam"):
        named = next(recipe for recipe in known if recipe.name == wanted)
        if fitting and named not in fitting:
            found = f"its encoder is {width} wide, which is {fitting[0].name}, not {wanted}"
            raise CheckpointError(f"read the checkpoint {path}", found, "leave --family out")
        return named
    if not fitting:
        found = f"no preset has an encoder of width {width}"
        raise CheckpointError(f"read the checkpoint {path}", found, f"name the nearest preset: --family {names}")
    return fitting[0]


def resolved(recipe: SamRecipe) -> dict[str, Any]:
    """What the runtime reads of the recipe, as JSON."""
    return {
        "resize": {"mode": "long-side", "long": recipe.canvas},
        "divisor": recipe.canvas,
        "prompts": recipe.prompts,
        "automatic": recipe.automatic,
        "gate": recipe.gate,
    }


def export_sam(
    path: Path,
    state: StateDict,
    sizes: list[Size],
    output: Path,
    *,
    wanted: str | None,
    hub: str | None,
    overwrite: bool,
    progress: Progress,
) -> Bundle:
    """Export a SAM checkpoint; arguments as of `bundle.export_bundle`."""
    recipe = choose(path, wanted, state)
    canvas = (recipe.canvas, recipe.canvas)
    check_sizes(sizes, canvas)
    model = sam.load(path, state, recipe)
    source = Source(path.name, file_digest(path), hub, recipe.licence)
    plans = sam.graphs(model)
    made = SegmentExport("sam", recipe.name, source, resolved(recipe), canvas, sam.transforms(), plans, prompt_masks)
    return write_bundle(made, output, overwrite, progress)


def prompt_masks(values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The single mask of each prompt (1, N, h, w), each prompt a class of its own (1, N, N)."""
    masks = values["prompt_masks"][:, 0]
    return masks[None], torch.eye(len(masks))[None]
