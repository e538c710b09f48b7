"""USE's entry: CLIP's file becomes the encoder of patches, the head of segments, the scoring and the text encoder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeseg.errors import CheckpointError
from edgeseg.schema import ImageTransform, Size

from . import clip_file
from .checkpoint import StateDict, check_state, scalars_as
from .ebseg import CLIP_MEAN, CLIP_STD
from .graphs import GraphPlan
from .nets.clip import ClipText
from .nets.use import DenseClip, SegmentHead, SegmentScore
from .sam_recipe import UseRecipe

IMAGE = "image_clip"
MOST_CLASSES = 1024
MOST_SEGMENTS = 1024


@dataclass(frozen=True)
class UseModel:
    """The parts of a USE.

    Attributes:
        encoder: image → patches (1, L, C). `head`, `text`: see `nets`. `scale`: of the cosines.
        patch: side of a patch, pixels of the encoder's input. `embedding`: D.
    """

    encoder: nn.Module
    head: SegmentHead
    text: ClipText
    scale: float
    patch: int
    embedding: int


def transforms(recipe: UseRecipe) -> dict[str, ImageTransform]:
    """The encoder's input, by name."""
    return {IMAGE: ImageTransform(CLIP_MEAN, CLIP_STD, recipe.clip_scale)}


def load(path: Path, state: StateDict, recipe: UseRecipe) -> UseModel:
    """The model with CLIP's weights, in eval mode.

    Raises:
        CheckpointError: the tensors do not agree with each other, or keys are missing, unexpected or mis-shaped.
    """
    try:
        config = clip_file.image_config(state, recipe.surgery)
        with torch.device("meta"):
            encoder = DenseClip(config)
        tower, text_state = clip_file.text_tower(state)
    except (LookupError, ValueError, ArithmeticError, RuntimeError) as error:
        found = f"the tensors that tell the model's sizes are missing or odd ({error})"
        raise CheckpointError(f"read the checkpoint {path}", found, "give a whole CLIP checkpoint") from error
    _fill(path, encoder.trunk, clip_file.image_state(state, config))
    _fill(path, tower, text_state)
    scale = math.exp(float(state["logit_scale"].reshape(())))
    return UseModel(encoder.eval(), SegmentHead().eval(), tower, scale, config.patch, config.embedding)


def _fill(path: Path, network: nn.Module, state: StateDict) -> None:
    state = scalars_as(network, state)
    check_state(path, network, state)
    network.load_state_dict(state, assign=True)
    network.eval().requires_grad_(False)


def patches(model: UseModel, recipe: UseRecipe, canvas: Size) -> int:
    """Patches on a side. Raises CheckpointError if the recipe's input is no whole number of them."""
    side = int(canvas[0] * recipe.clip_scale)
    if side % model.patch:
        found = f"its patches of {model.patch} pixels do not divide an input of {side}"
        raise CheckpointError(f"use CLIP with the recipe {recipe.name}", found, "take a CLIP of patch 14, 16 or 32")
    return side // model.patch


def graphs(model: UseModel, canvas: Size) -> list[GraphPlan]:
    """Encoder, head and scoring, in the order they run; the counts of segments and classes are dynamic."""
    segments = {"segment_weights": {0: "S"}, "segment_embedding": {0: "S"}}
    classes = {"segment_embedding": {0: "S"}, "text": {0: "C"}, "class_probs": {1: "S", 2: "C"}}
    many, most = {"S": (1, 64, MOST_SEGMENTS)}, {"C": (1, 150, MOST_CLASSES)}
    inputs = ["patch_embedding", "segment_weights"]
    return [
        GraphPlan("use_encoder", model.encoder, canvas, [IMAGE], ["patch_embedding"]),
        GraphPlan("use_head", model.head, canvas, inputs, ["segment_embedding"], segments, many),
        GraphPlan(
            "score",
            SegmentScore(model.scale),
            None,
            ["segment_embedding", "text"],
            ["class_probs"],
            classes,
            many | most,
        ),
    ]


def prompt_masks(values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The single mask of each prompt (1, N, h, w), with the classes of the reference's segments (1, N, C)."""
    return values["prompt_masks"][:, 0][None], values["class_probs"]
