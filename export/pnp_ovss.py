"""PnP-OVSS's entry (Luo et al., CVPR 2024): BLIP's published retrieval checkpoint becomes the graphs of one round.

The published files (model_large_retrieval_flickr.pth, model_large_retrieval_coco.pth) are trained at 384 pixels; their
positions are resized to the canvas. They hold no vocabulary: it is that of bert-base-uncased, and two tokens more.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgeseg.errors import InputError
from edgeseg.pipelines.pnp_maps import ClassMaps
from edgeseg.pipelines.pnp_ovss import MAPS, REFERENCE
from edgeseg.placement import Placement
from edgeseg.schema import ImageTransform, Size

from . import reference
from .checkpoint import StateDict, built, fill
from .graphs import GraphPlan
from .nets.blip_itm import BlipItm, ItmConfig
from .nets.blip_vit import BlipViT, VitConfig
from .nets.salience import Salience
from .recipe import Recipe
from .text_encoders import BLIP_CONTEXT

MEAN, STD = (122.7709383, 116.7460125, 104.09373615), (68.5005327, 66.6321579, 70.3231630)
HEAD = 64  # channels of an attention head, in both encoders of every published size

# What a published file holds and this never reads: the momentum copies and queues of training, the projections of the
# contrastive loss, a constant.
IGNORED = re.compile(r"[a-z_]+_m\..*|(image|text|idx|ptr)_queue|queue_ptr|temp|(vision|text)_proj\..*|.*\.position_ids")

BATCH = (1, 1, 8)  # smallest, usual, largest
MOST_CLASSES = 256  # in the captions of one image
CASE = ((0, 4, 1), (0, 5, 2), (0, 7, 3), (1, 4, 3))  # classes of a reference case: caption, first token, tokens

KEYS = "its keys begin with visual_encoder, text_encoder, itm_head"
ENCODER = "BLIP"


class Blip(nn.Module):
    """Both encoders, under the published names."""

    def __init__(self, vit: VitConfig, itm: ItmConfig) -> None:
        super().__init__()
        self.visual_encoder = BlipViT(vit)
        match = BlipItm(itm)
        self.text_encoder, self.itm_head = match.text_encoder, match.itm_head
        self._match = [match]  # in a list: its parameters are already there under their own names

    @property
    def match(self) -> BlipItm:
        """The text encoder with the match head."""
        return self._match[0]


def recognises(state: Mapping[str, Tensor]) -> bool:
    """Whether these tensors look like a BLIP with an image-text match head, of any size."""
    first = state.get("visual_encoder.patch_embed.proj.weight")
    cross = "text_encoder.encoder.layer.0.crossattention.self.key.weight"
    return first is not None and first.ndim == 4 and cross in state and "itm_head.weight" in state


def clip_sizes(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """The image encoder's (width, patch)."""
    weight = state["visual_encoder.patch_embed.proj.weight"]
    return weight.shape[0], weight.shape[-1]


def fits(state: Mapping[str, Tensor], recipe: Recipe) -> bool:
    """Whatever else differs, the tensors tell."""
    return True


def embedding(model: Blip) -> int:
    """Of the placeholders that stand for classes."""
    return 1


def text_tower(model: Blip) -> nn.Embedding:
    """The table of words, which the vocabulary must fit; the text encoder itself reads the image too."""
    return cast(nn.Embedding, model.get_submodule("text_encoder.embeddings.word_embeddings"))


def transforms(recipe: Recipe) -> dict[str, ImageTransform]:
    """The network input made of the image."""
    return {"pixels": ImageTransform(MEAN, STD)}


def load(path: Path, state: StateDict, recipe: Recipe) -> Blip:
    """The model with the checkpoint's weights, in eval mode.

    Args:
        path: of the checkpoint, for messages.
        state: its tensors.
        recipe: the preset, which says whose map is taken and of what.

    Raises:
        CheckpointError: the tensors do not agree with each other, or keys are missing, unexpected or mis-shaped.
    """
    state = {name: value for name, value in state.items() if not IGNORED.fullmatch(name)}
    layer, head, seed = (recipe.options[name] for name in ("layer", "head", "seed"))
    kind = "a whole BLIP retrieval checkpoint"
    model = built(path, kind, lambda: Blip(vit_config(state), itm_config(state, layer, head, seed)))
    return fill(path, model, state)


def vit_config(state: Mapping[str, Tensor]) -> VitConfig:
    """Every size of the image encoder. Raises LookupError or ValueError where the tensors do not tell."""
    width, _, _, patch = state["visual_encoder.patch_embed.proj.weight"].shape
    rows = state["visual_encoder.pos_embed"].shape[1] - 1
    grid = math.isqrt(max(rows, 0))
    if grid * grid != rows or not rows:
        raise ValueError(f"a position table of {rows} rows is not square")
    return VitConfig(
        width=width,
        depth=_count(state, r"visual_encoder\.blocks\.(\d+)\."),
        heads=_heads(width),
        patch=patch,
        grid=grid,
        hidden=state["visual_encoder.blocks.0.mlp.fc1.weight"].shape[0],
    )


def itm_config(state: Mapping[str, Tensor], layer: int, head: int, seed: str) -> ItmConfig:
    """Every size of the text encoder. Raises LookupError or ValueError where the tensors do not tell."""
    words, width = state["text_encoder.embeddings.word_embeddings.weight"].shape
    depth, heads = _count(state, r"text_encoder\.encoder\.layer\.(\d+)\."), _heads(width)
    if not (0 <= layer < depth - 1 and 0 <= head < heads):
        raise ValueError(f"block {layer} and head {head} of {depth} blocks and {heads} heads")
    return ItmConfig(
        width=width,
        heads=heads,
        depth=depth,
        hidden=state["text_encoder.encoder.layer.0.intermediate.dense.weight"].shape[0],
        words=words,
        positions=state["text_encoder.embeddings.position_embeddings.weight"].shape[0],
        image_width=state["text_encoder.encoder.layer.0.crossattention.self.key.weight"].shape[1],
        layer=layer,
        head=head,
        seed=seed,
    )


def _heads(width: int) -> int:
    if width % HEAD or not width:
        raise ValueError(f"a width of {width} is no multiple of {HEAD}")
    return width // HEAD


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[1] for name in state if (match := re.match(pattern, name))})


def check_canvas(canvas: Size, patch: int = 16) -> None:
    """A canvas must be whole patches. Raises InputError."""
    if any(extent % patch for extent in canvas):
        nearest = "x".join(str(max(patch, round(extent / patch) * patch)) for extent in canvas)
        asked = f"export a canvas of {canvas[0]}x{canvas[1]}"
        raise InputError(asked, f"BLIP's sizes are multiples of {patch}", f"use --size {nearest}")


def plans(model: Blip, recipe: Recipe, canvas: Size) -> list[GraphPlan]:
    """The graphs of one canvas, in the order they run: one round.

    Batches: B images, or one image (I = 1) with B captions of T tokens and C classes among them.
    """
    inputs = ["cam", "pieces", "keep", "weight", "patches", "class_maps"]
    maps = {"class_maps": {0: "C"}, "class_maps_next": {0: "C"}}
    dynamic = {"cam": {0: "B", 1: "T"}, "pieces": {0: "B", 1: "C", 2: "T"}, **maps}
    tokens = 3, 16, _most_tokens(model)
    axes = {"B": BATCH, "T": tokens, "C": (1, 8, MOST_CLASSES)}
    score = GraphPlan("score", Salience(), canvas, inputs, ["keep_next", "class_maps_next"], dynamic, axes)
    return [_vit_plan(model, canvas), _match_plan(model, canvas, tokens), score]


def _most_tokens(model: Blip) -> int:
    """Of a caption: what the authors' code cuts captions at, or what the table of positions holds."""
    return min(model.match.config.positions, BLIP_CONTEXT)


def _vit_plan(model: Blip, canvas: Size) -> GraphPlan:
    dynamic = {name: {0: "B"} for name in ("pixels", "keep", "image_embeds")}
    inputs, network = ["pixels", "keep"], model.visual_encoder
    return GraphPlan("blip_vit", network, canvas, inputs, ["image_embeds"], dynamic, {"B": BATCH})


def _match_plan(model: Blip, canvas: Size, tokens: tuple[int, int, int]) -> GraphPlan:
    dynamic = {name: {0: "B", 1: "T"} for name in ("input_ids", "attn_mask", "cam")}
    dynamic |= {"image_embeds": {0: "I"}, "itm_logits": {0: "B"}}
    inputs, axes = ["image_embeds", "input_ids", "attn_mask"], {"I": BATCH, "B": BATCH, "T": tokens}
    return GraphPlan("blip_itm_cam", model.match, canvas, inputs, ["cam", "itm_logits"], dynamic, axes)


def resolved(model: Blip, recipe: Recipe) -> dict[str, Any]:
    """What the bundle's recipe holds for PnP-OVSS alone."""
    config = model.match.config
    return {
        "patch": model.visual_encoder.config.patch,
        "caption": recipe.options["caption"],
        "tokens": _most_tokens(model),
        "start_token": config.words - 1,  # [ENC], which the last row of BLIP's table stands for
        "layer": config.layer,
        "head": config.head,
        "seed": config.seed,
    }


def case(model: Blip, image: npt.NDArray[np.uint8], text: Tensor, number: int) -> dict[str, Any]:
    """A round some way in: two captions that differ in length, random words, patches left out.

    The round leaves out no further ones: which they are is a choice that rounding may turn, not a number to compare.
    """
    random = np.random.Generator(np.random.PCG64(number))
    config, patch = model.match.config, model.visual_encoder.config.patch
    grid = image.shape[0] // patch, image.shape[1] // patch
    lengths, tokens = np.array([11, 8]), 11
    mask = (np.arange(tokens) < lengths[:, None]).astype(np.int32)
    words = random.integers(config.words // 2, config.words - 2, (2, tokens)).astype(np.int32) * mask
    words[:, 0] = config.words - 1
    pieces = np.zeros((2, len(CASE), tokens), np.float32)
    for label, (caption, first, count) in enumerate(CASE):
        pieces[caption, label, first : first + count] = 1 / count
    return {
        "image": image,
        "keep": (random.random((1, 1, *grid)) > 0.1).astype(np.float32),
        "input_ids": words,
        "attn_mask": mask,
        "pieces": pieces,
        "weight": np.array([1 + number], np.float32),
        "patches": np.zeros(1, np.float32),
        "class_maps": np.zeros((len(CASE), grid[0] * grid[1]), np.float32),
    }


def labels(values: Mapping[str, Tensor], canvas: Size) -> npt.NDArray[np.uint16]:
    """Of the round's class maps, see `reference.decided`."""
    maps = values[MAPS].numpy().reshape(-1, *values["keep"].shape[2:])
    names = tuple(map(str, range(len(maps))))
    place = Placement(canvas, canvas, canvas, True, None)
    made = ClassMaps(maps, np.arange(len(maps)), names, place, REFERENCE)
    scores = np.concatenate([rows for _, _, rows in made.scores()])
    return reference.decided(torch.from_numpy(scores).permute(2, 0, 1))
