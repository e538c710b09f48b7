"""The paper's reading of USE: CLIP and DINOv2 behind one another in a file's tensors, and what is trained on top.

DINOv2's tensors stand under `dino.`, what is trained under `use.`. Nobody has published the latter: without them they
are drawn at random, the same on every machine, and the bundle says that it is untrained.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeseg.errors import CheckpointError, InputError

from . import clip_file
from .checkpoint import StateDict, fill
from .nets.dinov2 import DinoConfig
from .nets.use import SegmentHead, TappedEncoder
from .recipe import Recipe

DINO, TRAINED = "dino.", "use."

# What DINOv2's file holds and no graph reads: the token of masked patches, and the norm behind the last block.
IGNORED = re.compile(r"mask_token|norm\.(weight|bias)")


@dataclass(frozen=True)
class Tapped:
    """What `load` gives.

    Attributes:
        encoder, head: the networks.
        trained: whether the file had the weights of the levels and of the head.
    """

    encoder: TappedEncoder
    head: SegmentHead
    trained: bool


def load(path: Path, state: Mapping[str, Tensor], recipe: Recipe) -> Tapped:
    """Both networks with the weights of CLIP, DINOv2 and, if they are there, of what is trained.

    Raises:
        InputError: there is no DINOv2; the message says what to fetch.
        CheckpointError: keys are missing, unexpected or mis-shaped, or the two encoders' patches are of two sizes.
        LookupError, ValueError, ArithmeticError, RuntimeError: tensors that tell sizes are missing or odd.
    """
    dino = _part(state, DINO)
    dino = {name: value for name, value in dino.items() if not IGNORED.fullmatch(name)}
    if not dino:
        found = f"{recipe.name} reads DINOv2 beside CLIP, and no file of it was given"
        fetch = "fetch dinov2_vitl14_pretrain.pth of github.com/facebookresearch/dinov2"
        raise InputError(f"export {path}", found, f"{fetch}, and add --dino dinov2_vitl14_pretrain.pth")
    clip_config, dino_config = clip_file.image_config(state, surgery=0), dino_sizes(dino)
    if clip_config.patch != dino_config.patch:
        found = f"CLIP's patches have {clip_config.patch} pixels and DINOv2's {dino_config.patch}"
        raise CheckpointError(f"read {path} with a DINOv2", found, "take a CLIP ViT-L/14 and a DINOv2 of patch 14")
    options = recipe.options
    merged, trained = {"levels": options["levels"], "width": options["merged"]}, _part(state, TRAINED)
    with torch.device("meta"):
        encoder = TappedEncoder(clip_config, dino_config, **merged, class_token=options["class_token"] == "add")
        head = SegmentHead(nn.Linear(options["merged"], clip_config.embedding))
    mine = trained or drawn(encoder, head)
    clip = clip_file.image_state(state, clip_config)
    whole = {f"clip.{name}": value for name, value in clip.items()} | {f"dino.{k}": v for k, v in dino.items()}
    fill(path, encoder, whole | {name: value for name, value in mine.items() if not name.startswith("project.")})
    fill(path, head, {name: value for name, value in mine.items() if name.startswith("project.")})
    return Tapped(encoder, head, bool(trained))


def dino_sizes(state: Mapping[str, Tensor]) -> DinoConfig:
    """Every size of DINOv2's encoder. Raises LookupError or ValueError where the tensors do not tell."""
    width, _, _, patch = state["patch_embed.proj.weight"].shape
    rows = state["pos_embed"].shape[1] - 1
    if math.isqrt(rows) ** 2 != rows or width % 64:
        raise ValueError(f"DINOv2's position table has {rows} rows, its width is {width}")
    depth = len({match[1] for name in state if (match := re.match(r"blocks\.(\d+)\.", name))})
    hidden = state["blocks.0.mlp.fc1.weight"].shape[0]
    return DinoConfig(width, depth, width // 64, patch, math.isqrt(rows), hidden)


def drawn(encoder: TappedEncoder, head: SegmentHead) -> StateDict:
    """Weights that nobody has trained: each level counts alike, every linear layer keeps the scale of its input."""
    random, made = torch.Generator().manual_seed(0), {}
    mine = [(name, value) for name, value in encoder.named_parameters() if not name.startswith(("clip.", "dino."))]
    for name, value in [*mine, *head.named_parameters()]:
        if value.ndim == 2:
            made[name] = torch.randn(value.shape, generator=random) / value.shape[1] ** 0.5
        elif name == "scales":
            made[name] = torch.full(value.shape, 1 / len(value))
        else:
            made[name] = torch.full(value.shape, float(name.endswith("norm.weight")))
    return made


def _part(state: Mapping[str, Tensor], prefix: str) -> StateDict:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
