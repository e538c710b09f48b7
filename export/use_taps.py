"""The paper's reading of USE: CLIP and a second encoder in one state of tensors, and what is trained on top of both.

The second encoder is DINOv2, its tensors under `dino.`, or one of SAM's kind, under `backbone.` as in EBSeg's files.
What is trained stands under `use.`. Nobody has published that for the paper's sizes: without it, it is drawn at random,
the same on every machine, and the bundle says that it is untrained.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeseg.errors import CheckpointError, InputError

from . import clip_file, ebseg
from .checkpoint import StateDict, fill
from .nets.dinov2 import DinoConfig
from .nets.sam import SamConfig
from .nets.use import SegmentHead, TappedEncoder
from .recipe import Recipe

TRAINED = "use."

# What DINOv2's file holds and no graph reads: the token of masked patches, and the norm behind the last block.
IGNORED = re.compile(r"mask_token|norm\.(weight|bias)")


@dataclass(frozen=True)
class Second:
    """A kind of encoder beside CLIP.

    Attributes:
        name: for messages. `prefix`: of its tensors' names. `image`: its network input, ImageNet-normalised.
        sizes: of the encoder, from tensors under the prefix; LookupError or ValueError where they do not tell.
        todo: where its tensors are missing.
    """

    name: str
    prefix: str
    image: str
    sizes: Callable[[Mapping[str, Tensor]], DinoConfig | SamConfig]
    todo: str


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
    """Both networks with the weights of CLIP, the second encoder and, if they are there, of what is trained.

    Raises:
        InputError: there is no second encoder; the message says what to give.
        CheckpointError: keys are missing, unexpected or mis-shaped, or the two encoders' patches are of two sizes.
        LookupError, ValueError, ArithmeticError, RuntimeError: tensors that tell sizes are missing or odd.
    """
    options, kind = recipe.options, SECOND[recipe.options["second"]]
    second = {name: value for name, value in _part(state, kind.prefix).items() if not IGNORED.fullmatch(name)}
    if not second:
        found = f"{recipe.name} reads {kind.name} beside CLIP, and no file of it was given"
        raise InputError(f"export {path}", found, kind.todo)
    clip_config, second_config = clip_file.image_config(state, 0, options["clip_head"]), kind.sizes(state)
    if clip_config.patch != second_config.patch:
        found = f"CLIP's patches have {clip_config.patch} pixels and {kind.name}'s {second_config.patch}"
        todo = "take two encoders of one patch size, such as a CLIP ViT-L/14 and a DINOv2 of patch 14"
        raise CheckpointError(f"read {path} with {kind.name}", found, todo)
    merged, trained = {"levels": options["levels"], "width": options["merged"]}, _part(state, TRAINED)
    with torch.device("meta"):
        encoder = TappedEncoder(clip_config, second_config, **merged, class_token=options["class_token"] == "add")
        head = SegmentHead(nn.Linear(options["merged"], clip_config.embedding))
    mine = trained or drawn(encoder, head)
    clip = clip_file.image_state(state, clip_config)
    whole = {f"clip.{name}": value for name, value in clip.items()} | {f"second.{k}": v for k, v in second.items()}
    fill(path, encoder, whole | {name: value for name, value in mine.items() if not name.startswith("project.")})
    fill(path, head, {name: value for name, value in mine.items() if name.startswith("project.")})
    return Tapped(encoder, head, bool(trained))


def dino_sizes(state: Mapping[str, Tensor]) -> DinoConfig:
    """Every size of the encoder under `dino.`. Raises LookupError or ValueError where the tensors do not tell."""
    state = _part(state, "dino.")
    width, _, _, patch = state["patch_embed.proj.weight"].shape
    rows = state["pos_embed"].shape[1] - 1
    if math.isqrt(rows) ** 2 != rows or width % 64:
        raise ValueError(f"DINOv2's position table has {rows} rows, its width is {width}")
    depth = len({match[1] for name in state if (match := re.match(r"blocks\.(\d+)\.", name))})
    hidden = state["blocks.0.mlp.fc1.weight"].shape[0]
    return DinoConfig(width, depth, width // 64, patch, math.isqrt(rows), hidden)


# By the recipe's `second`.
SECOND = {
    "dinov2": Second(
        "DINOv2",
        "dino.",
        "image_dino",
        dino_sizes,
        "fetch dinov2_vitl14_pretrain.pth of github.com/facebookresearch/dinov2, "
        "and add --dino dinov2_vitl14_pretrain.pth",
    ),
    "sam-vit": Second(
        "a ViT of SAM's kind", "backbone.", "image_vit", ebseg.sam_sizes, "give weights/use-tiny.safetensors"
    ),
}


def kinds(state: Mapping[str, Tensor]) -> set[str]:
    """The second encoders whose tensors are there, as a recipe names them."""
    return {name for name, kind in SECOND.items() if any(key.startswith(kind.prefix) for key in state)}


def others(name: str) -> bool:
    """Whether a tensor of this name is not CLIP's."""
    return name.startswith((TRAINED, *(kind.prefix for kind in SECOND.values())))


def drawn(encoder: TappedEncoder, head: SegmentHead) -> StateDict:
    """Weights that nobody has trained: each level counts alike, every linear layer keeps the scale of its input."""
    random, made = torch.Generator().manual_seed(0), {}
    mine = [(name, value) for name, value in encoder.named_parameters() if not name.startswith(("clip.", "second."))]
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
