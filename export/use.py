"""USE's entry: CLIP's file becomes the encoder of patches, the head of segments, the scoring and the text encoder.

The segments are SAM's, whose file is given beside CLIP's: its tensors stand in one state dict, under `sam.`. With a
second encoder beside CLIP's, it is the paper's, see `use_taps`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgeseg.errors import CheckpointError, InputError
from edgeseg.schema import ImageTransform, Size

from . import clip_file, reference, sam, use_taps
from .checkpoint import StateDict, fill
from .ebseg import CLIP_MEAN, CLIP_STD
from .graphs import GraphPlan
from .nets.clip import ClipConfig, ClipText
from .nets.segment_anything import SegmentAnything
from .nets.use import DenseClip, SegmentHead, SegmentScore
from .recipe import Recipe, preset

KEYS = "its keys begin with visual.conv1, visual.transformer, and text_projection or use"
ENCODER = "CLIP"

IMAGE = "image_clip"
SAM = "sam."
MOST_CLASSES = 1024
MOST_SEGMENTS = 1024

check_canvas = sam.check_canvas


@dataclass(frozen=True)
class ClipParts:
    """What a CLIP becomes.

    Attributes:
        encoder: image → patches (1, L, C), or two images. `head`, `text`: see `nets`. `scale`: of the cosines.
        patch: side of a patch, pixels of the encoder's input. `embedding`: D. `trained`: no weight was drawn.
        text: None where the recipe's text encoder is not CLIP's.
    """

    encoder: nn.Module
    head: SegmentHead
    text: ClipText | None
    scale: float
    patch: int
    embedding: int
    trained: bool = True


@dataclass(frozen=True)
class UseModel:
    """A CLIP, the SAM in front of it, and the recipe of that SAM."""

    clip: ClipParts
    masks: SegmentAnything
    prompting: Recipe


def recognises(state: Mapping[str, Tensor]) -> bool:
    """Whether these tensors look like a CLIP, or like USE's own with the image encoder of one, of any size."""
    return clip_file.is_clip(state) or ("visual.conv1.weight" in state and f"{use_taps.TRAINED}scales" in state)


def clip_sizes(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """CLIP's (width, patch), by which a recipe is chosen."""
    weight = state["visual.conv1.weight"]
    return weight.shape[0], weight.shape[-1]


def fits(state: Mapping[str, Tensor], recipe: Recipe) -> bool:
    """A CLIP of any sizes; with a second encoder only a recipe that reads it."""
    return use_taps.kinds(state) <= {recipe.options["second"]}


def transforms(recipe: Recipe) -> dict[str, ImageTransform]:
    """The network inputs, by name."""
    scale, second = recipe.options["clip_scale"], use_taps.SECOND.get(recipe.options["second"])
    made = sam.transforms(recipe) | {IMAGE: ImageTransform(CLIP_MEAN, CLIP_STD, scale)}
    return made | ({second.image: ImageTransform(sam.MEAN, sam.STD, scale)} if second else {})


def load(path: Path, state: StateDict, recipe: Recipe) -> UseModel:
    """The model with the weights of CLIP and SAM, in eval mode.

    Raises:
        InputError: there is no SAM; the message says what to fetch.
        CheckpointError: the tensors do not agree with each other, or keys are missing, unexpected or mis-shaped.
    """
    front = {name.removeprefix(SAM): value for name, value in state.items() if name.startswith(SAM)}
    prompting = _prompting(path, front, recipe)
    clip = load_clip(path, {name: value for name, value in state.items() if not name.startswith(SAM)}, recipe)
    return UseModel(clip, sam.load(path, front, prompting), prompting)


def _prompting(path: Path, state: StateDict, recipe: Recipe) -> Recipe:
    """The preset of the SAM in front, told by its tensors."""
    known = recipe.options["sam"]
    if not state:
        found = f"{recipe.name} puts its segments' embeddings behind a SAM, and no file of one was given"
        fetch = "fetch one, such as mobile_sam.pt of huggingface.co/dhkim2810/MobileSAM, and add --sam mobile_sam.pt"
        raise InputError(f"export {path}", found, f"{fetch} ({', '.join(known)} will do)")
    asked, todo = f"put a SAM in front of {path}", f"give a file of {', '.join(known)}"
    if not sam.recognises(state):
        raise CheckpointError(asked, "the tensors of --sam are not those of a SAM", todo)
    width, _ = sam.clip_sizes(state)
    fitting = [one for one in map(preset, known) if one.clip_width == width]
    if not fitting:
        raise CheckpointError(asked, f"no preset has a SAM of width {width}", todo)
    return fitting[0]


def load_clip(path: Path, state: StateDict, recipe: Recipe) -> ClipParts:
    """CLIP's part of `load`, a second encoder and what is trained on both among it."""
    clip = {name: value for name, value in state.items() if not use_taps.others(name)}
    options, tower = recipe.options, None
    try:
        config = clip_file.image_config(clip, options["surgery"], options["clip_head"])
        if recipe.text_encoder == "clip":
            tower, text_state = clip_file.text_tower(clip)
        temperature = options["temperature"] or math.exp(-float(clip["logit_scale"].reshape(())))
        made = use_taps.load(path, state, recipe) if options["second"] else _dense(path, clip, config)
    except (LookupError, ValueError, ArithmeticError, RuntimeError) as error:
        found = f"the tensors that tell the model's sizes are missing or odd ({error})"
        raise CheckpointError(f"read the checkpoint {path}", found, "give a whole CLIP checkpoint") from error
    if tower:
        fill(path, tower, text_state)
    return ClipParts(made.encoder, made.head, tower, 1 / temperature, config.patch, config.embedding, made.trained)


@dataclass(frozen=True)
class _Dense:
    """As `use_taps.Tapped`; there is nothing to train."""

    encoder: DenseClip
    head: SegmentHead
    trained: bool = True


def _dense(path: Path, state: StateDict, config: ClipConfig) -> _Dense:
    with torch.device("meta"):
        encoder = DenseClip(config)
    fill(path, encoder.trunk, clip_file.image_state(state, config))
    return _Dense(encoder.eval(), SegmentHead().eval())


def embedding(model: UseModel) -> int:
    """D of the class embeddings."""
    return model.clip.embedding


def text_tower(model: UseModel) -> ClipText | None:
    """CLIP's text encoder; None where the recipe has another."""
    return model.clip.text


def resolved(model: UseModel, recipe: Recipe) -> dict[str, Any]:
    """What the bundle's recipe holds for USE alone, SAM's part among it."""
    options = recipe.options
    return {
        **sam.resolved(model.masks, model.prompting),
        "patches": _side(model, recipe) ** 2,
        "clip_scale": options["clip_scale"],
        **{name: options[name] for name in ("surgery", "levels", "merged", "class_token", "uncovered")},
        "logit_scale": round(model.clip.scale, 4),
        "trained": model.clip.trained,
    }


def _side(model: UseModel, recipe: Recipe) -> int:
    """Patches on a side. Raises CheckpointError if the recipe's input is no whole number of them."""
    side, patch = int(recipe.canvases[0][0] * recipe.options["clip_scale"]), model.clip.patch
    if side % patch:
        found = f"its patches of {patch} pixels do not divide an input of {side}"
        raise CheckpointError(f"use CLIP with the recipe {recipe.name}", found, "take a CLIP of patch 14, 16 or 32")
    return side // patch


def plans(model: UseModel, recipe: Recipe, canvas: Size) -> list[GraphPlan]:
    """SAM's graphs, then encoder, head and scoring; the counts of segments and classes are dynamic."""
    segments = {"segment_weights": {0: "S"}, "segment_embedding": {0: "S"}}
    classes = {"segment_embedding": {0: "S"}, "text": {0: "C"}, "class_probs": {1: "S", 2: "C"}}
    many = {"S": (1, 64, MOST_SEGMENTS)}
    inputs, rows = ["patch_embedding", "segment_weights"], ["segment_embedding"]
    images = [name for name in transforms(recipe) if name != sam.IMAGE]
    score, axes = SegmentScore(model.clip.scale), many | {"C": (1, 150, MOST_CLASSES)}
    return [
        *sam.plans(model.masks, model.prompting, canvas),
        GraphPlan("use_encoder", model.clip.encoder, canvas, images, ["patch_embedding"]),
        GraphPlan("use_head", model.clip.head, canvas, inputs, rows, segments, many),
        GraphPlan("score", score, None, [*rows, "text"], ["class_probs"], classes, axes),
    ]


def case(model: UseModel, image: npt.NDArray[np.uint8], text: Tensor, number: int) -> dict[str, Any]:
    """See `Family`."""
    return reference.embedded_case(image, text, number)


def labels(values: Mapping[str, Tensor], canvas: Size) -> npt.NDArray[np.uint16]:
    """The label map (H, W) of the prompts' single masks, with the classes of the reference's segments."""
    return reference.labels(values["prompt_masks"][:, 0][None], values["class_probs"], canvas)
