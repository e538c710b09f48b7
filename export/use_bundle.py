"""A CLIP checkpoint and a SAM checkpoint become one bundle of USE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgeseg.bundle import Bundle
from edgeseg.errors import CheckpointError, InputError
from edgeseg.schema import Size, Source
from edgeseg.segments.pooling import fixed_weights
from edgeseg.vocabulary.classes import data_lines

from . import sam, sam_bundle, use
from .checkpoint import StateDict, file_digest, read_checkpoint
from .recipe import presets
from .sam_recipe import UseRecipe
from .segment_bundle import Progress, SegmentExport, check_sizes, write_bundle
from .text_encoders import find


def choose(path: Path, wanted: str | None, state: Mapping[str, Tensor]) -> UseRecipe:
    """The preset asked for. Raises InputError for an unknown one, CheckpointError for one that the file is not for."""
    known = presets(UseRecipe)
    names = ", ".join(recipe.name for recipe in known)
    named = [recipe for recipe in known if wanted in (None, "use", recipe.name)]
    if not named:
        found = "the checkpoint is a CLIP, and that is no preset that is built on one"
        raise InputError(f"use --family {wanted}", found, f"choose from {names}")
    width, _, _, patch = state["visual.conv1.weight"].shape
    if named[0].clip_width not in (0, width) or named[0].clip_patch not in (0, patch):
        found = f"it is of width {width} and patch {patch}, {wanted} wants {named[0].clip_width}, {named[0].clip_patch}"
        raise CheckpointError(f"read the checkpoint {path}", found, "give the CLIP that the preset names")
    return named[0]


def export_use(
    path: Path, state: StateDict, sizes: list[Size], output: Path, *, choice: Mapping[str, Any], progress: Progress
) -> Bundle:
    """Export USE; `choice` has the family asked for, the hub, SAM's path, and whether to overwrite."""
    recipe = choose(path, choice["wanted"], state)
    sam_path = _sam(path, recipe, choice["sam"])
    sam_state = read_checkpoint(sam_path)
    if not sam.is_sam(sam_state):
        todo = f"give a file of {', '.join(recipe.sam)}"
        raise CheckpointError(f"read the checkpoint {sam_path}", "its tensors are not those of a SAM", todo)
    sam_recipe = sam_bundle.choose(sam_path, None, sam_state)
    canvas = (sam_recipe.canvas, sam_recipe.canvas)
    check_sizes(sizes, canvas)
    masks, model = sam.load(sam_path, sam_state, sam_recipe), use.load(path, state, recipe)
    text = find(recipe.text_encoder, model.text)
    side = use.patches(model, recipe, canvas)
    digests = f"{recipe.licence}; {sam_recipe.name}, sha256 {file_digest(sam_path)}: {sam_recipe.licence}"
    made = SegmentExport(
        family="use",
        name=recipe.name,
        source=Source(path.name, file_digest(path), choice["hub"], digests),
        recipe=sam_bundle.resolved(replace(sam_recipe, gate=recipe.gate)) | _resolved(recipe, model),
        canvas=canvas,
        images=sam.transforms() | use.transforms(recipe),
        plans=[*sam.graphs(masks), *use.graphs(model, canvas)],
        masks=use.prompt_masks,
        inputs={"segment_weights": torch.from_numpy(fixed_weights(sam_recipe.prompts["batch"], side**2))},
        text=text,
    )
    return write_bundle(made, output, choice["overwrite"], progress)


def _resolved(recipe: UseRecipe, model: use.UseModel) -> dict[str, Any]:
    """What the runtime reads of the recipe beside SAM's part, as JSON."""
    return {
        "embedding": model.embedding,
        "clip_scale": recipe.clip_scale,
        "surgery": recipe.surgery,
        "uncovered": recipe.uncovered,
        "templates": data_lines(f"templates-{recipe.templates}.txt"),
        "training_classes": [],
        "text_encoder": recipe.text_encoder,
        "text_context": len(model.text.positional_embedding),
        "text_source": None,
        "logit_scale": round(model.scale, 4),
    }


def _sam(path: Path, recipe: UseRecipe, given: Path | None) -> Path:
    """SAM's file. Raises InputError, with what to fetch, if none was given."""
    if given is None:
        found = f"{recipe.name} puts its segments' embeddings behind a SAM, and no file of one was given"
        fetch = "fetch one, such as mobile_sam.pt of huggingface.co/dhkim2810/MobileSAM, and add --sam mobile_sam.pt"
        todo = f"{fetch} ({', '.join(recipe.sam)} will do)"
        raise InputError(f"export {path}", found, todo)
    return given
