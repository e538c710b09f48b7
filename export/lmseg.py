"""The entry of LMSeg and CAT-Seg, one family: CAT-Seg is LMSeg without SAM.

CAT-Seg's published files (model_base.pth, model_large.pth) hold everything. LMSeg was never released: a checkpoint of
it holds CAT-Seg's keys, a SAM encoder under `sam.` and the fusion under `fusion.`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from edgeseg.errors import EdgesegError, InputError
from edgeseg.schema import ImageTransform, Size, size_text

from . import reference
from .checkpoint import StateDict, built, fill
from .ebseg import CLIP_MEAN, CLIP_STD, SAM_MEAN, SAM_STD
from .graphs import GraphPlan
from .nets.aggregation import AggregationConfig
from .nets.clip import ClipConfig, ClipText
from .nets.lmseg import WEIGHTS, AggregateGraph, ClipGraph, FusedRank, FusionConfig, LMSeg, LMSegConfig, Rank, SamGraph
from .nets.sam import SamConfig, taps_of
from .nets.swin import SwinConfig
from .recipe import Recipe

KEYS = "its keys begin with sem_seg_head.predictor.clip_model, sem_seg_head.predictor.transformer, upsample1"
ENCODER = "CLIP"

WINDOW, STRIDE = 384, 256  # of the sliding windows, in pixels of the canvas; fixed numbers in the authors' code
PAD_LENGTH = 256  # the class axis is padded to it, and more classes are never aggregated at once
MOST_CLASSES = 1024  # that the ranking takes
# Shares of the classes that are aggregated one after the other, which bounds the memory: where there is one view, and
# where there are several, which run one after the other too.
PARTS = {False: 4, True: 2}

CLIP, AGGREGATION = "sem_seg_head.predictor.clip_model", "sem_seg_head.predictor.transformer"

# What a published file may hold and inference never reads: CLIP's constant causal mask, and the authors' criterion.
IGNORED = re.compile(rf"{re.escape(CLIP)}\.attn_mask|criterion\..*")


def recognises(state: Mapping[str, Tensor]) -> bool:
    """Whether these tensors look like a CAT-Seg or LMSeg, of any size."""
    first = state.get(f"{CLIP}.visual.conv1.weight")
    return first is not None and first.ndim == 4 and f"{AGGREGATION}.conv1.weight" in state


def clip_sizes(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """CLIP's (width, patch), by which a recipe is chosen."""
    weight = state[f"{CLIP}.visual.conv1.weight"]
    return weight.shape[0], weight.shape[-1]


def fits(state: Mapping[str, Tensor], recipe: Recipe) -> bool:
    """Whether both have a SAM, or neither."""
    return ("sam.pos_embed" in state) == bool(recipe.options["sam"])


def check_canvas(canvas: Size) -> None:
    """A canvas holds whole windows. Raises InputError."""
    if any(extent < WINDOW or (extent - WINDOW) % STRIDE for extent in canvas):
        counts = (max(0, round((extent - WINDOW) / STRIDE)) for extent in canvas)
        nearest = "x".join(str(WINDOW + STRIDE * count) for count in counts)
        found = f"this family's windows are {WINDOW} pixels wide and {STRIDE} apart"
        raise InputError(f"export a canvas of {size_text(canvas)}", found, f"use --size {nearest}")


def views(canvas: Size) -> int:
    """How many images the encoders see: the windows, and, if there are several, the whole image."""
    rows, columns = ((extent - WINDOW) // STRIDE + 1 for extent in canvas)
    return 1 if rows * columns == 1 else rows * columns + 1


def load(path: Path, state: StateDict, recipe: Recipe) -> LMSeg:
    """The model with the checkpoint's weights, in eval mode.

    Raises:
        CheckpointError: the tensors do not agree with each other, or keys are missing, unexpected or mis-shaped.
    """
    state = {name: value for name, value in state.items() if not IGNORED.fullmatch(name)}
    model = built(path, "a whole CAT-Seg checkpoint", lambda: LMSeg(detect(state, recipe)))
    return fill(path, model, state)


def detect(state: Mapping[str, Tensor], recipe: Recipe) -> LMSegConfig:
    """Every size that the tensors tell; the recipe gives what they do not."""
    options = recipe.options
    clip = _clip(state, options["clip_head"])
    sam = _sam(state) if "sam.pos_embed" in state else None
    early, late = options["taps"]
    if not 0 <= early < late < clip.trunk - 1:
        raise ValueError(f"the taps {early}, {late} are not among the first {clip.trunk - 1} blocks of CLIP")
    return LMSegConfig(
        clip=clip,
        taps=(early, late),
        text=_text(state),
        aggregation=_aggregation(state, clip, recipe),
        sam=sam,
        fusion=None if sam is None else _fusion(state, clip, sam, recipe),
        appearance=options["sam"].get("appearance", "fused"),
    )


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many different numbers follow `prefix`."""
    return len({match[1] for name in state if (match := re.match(re.escape(prefix) + r"\.(\d+)\.", name))})


def _clip(state: Mapping[str, Tensor], head: int) -> ClipConfig:
    visual = f"{CLIP}.visual"
    width, patch = clip_sizes(state)
    side = math.isqrt(state[f"{visual}.positional_embedding"].shape[0] - 1)
    if side * side + 1 != state[f"{visual}.positional_embedding"].shape[0]:
        raise ValueError("CLIP's position table is not square")
    return ClipConfig(
        width=width,
        heads=width // head,
        patch=patch,
        grid=side,
        trunk=_count(state, f"{visual}.transformer.resblocks"),
        hidden=state[f"{visual}.transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        embedding=state[f"{visual}.proj"].shape[1],
    )


def _text(state: Mapping[str, Tensor]) -> tuple[int, int, int, int, int] | None:
    if f"{CLIP}.token_embedding.weight" not in state:
        return None
    words, width = state[f"{CLIP}.token_embedding.weight"].shape
    depth = _count(state, f"{CLIP}.transformer.resblocks")
    return width, width // 64, depth, state[f"{CLIP}.positional_embedding"].shape[0], words


def _aggregation(state: Mapping[str, Tensor], clip: ClipConfig, recipe: Recipe) -> AggregationConfig:
    side, pooling = recipe.options["side"], recipe.options["pooling"]
    width, prompts = state[f"{AGGREGATION}.conv1.weight"].shape[:2]
    block = f"{AGGREGATION}.layers.0.swin_block.block_2"
    windows, area, _ = state[f"{block}.attn_mask"].shape
    window, grid = math.isqrt(area), side // clip.patch
    if window**2 != area or windows * area != grid**2 or grid % pooling:
        raise ValueError(f"{windows} windows of {area} tokens and a pooling of {pooling} on a grid of side {grid}")
    if prompts != recipe.options["prompts"]:
        raise ValueError(f"its cost has {prompts} channels, and the recipe's prompts are {recipe.options['prompts']}")
    guides = [state[f"{AGGREGATION}.decoder_guidance_projection.{i}.0.weight"].shape for i in (0, 1)]
    return AggregationConfig(
        embedding=clip.embedding,
        swin=SwinConfig(
            width=width,
            guidance=state[f"{AGGREGATION}.guidance_projection.0.weight"].shape[0],
            hidden=state[f"{block}.mlp.fc1.weight"].shape[0],
            grid=grid,
            window=window,
            heads=width // 32,  # 32 wide in every published size
        ),
        class_hidden=state[f"{AGGREGATION}.layers.0.attention.MLP.0.weight"].shape[0],
        layers=_count(state, f"{AGGREGATION}.layers"),
        prompts=prompts,
        text_guidance=state[f"{AGGREGATION}.text_guidance_projection.0.weight"].shape[0],
        early=guides[0][1],
        late=guides[1][1],
        decoder=tuple(state[f"{AGGREGATION}.decoder{i}.conv.double_conv.0.weight"].shape[0] for i in (1, 2)),  # type: ignore[arg-type]
        decoder_guidance=(guides[0][0], guides[1][0]),
        pad_length=PAD_LENGTH,
        pooling=pooling,
    )


def _sam(state: Mapping[str, Tensor]) -> SamConfig:
    depth = _count(state, "sam.blocks")
    tables = [state[f"sam.blocks.{i}.attn.rel_pos_h"] for i in range(depth)]
    width, _, _, patch = state["sam.patch_embed.proj.weight"].shape
    grid = state["sam.pos_embed"].shape[1]
    taps = taps_of([len(table) for table in tables], grid)
    if depth - 1 not in taps:
        raise ValueError("the last block of SAM's encoder is not global")
    windows = {(len(table) + 1) // 2 for i, table in enumerate(tables) if i not in taps} or {grid}
    if len(windows) != 1:
        raise ValueError(f"SAM's windows differ: {sorted(windows)}")
    heads = width // tables[0].shape[1]
    hidden = state["sam.blocks.0.mlp.lin1.weight"].shape[0]
    return SamConfig(width, depth, heads, patch, grid, windows.pop(), taps, hidden)


def _fusion(state: Mapping[str, Tensor], clip: ClipConfig, sam: SamConfig, recipe: Recipe) -> FusionConfig:
    weight, adapter = recipe.options["sam"]["weight"], "fusion.adapter.0.weight" in state
    if weight not in WEIGHTS:
        found = f"its fusion weight is {weight!r}, and there are {', '.join(WEIGHTS)}"
        raise EdgesegError(f"use the recipe {recipe.name}", found, "mend the TOML file")
    if not adapter and clip.embedding != sam.width:
        raise ValueError(f"no adapter brings SAM's {sam.width} channels to CLIP's {clip.embedding}")
    return FusionConfig(clip.embedding, sam.width, weight, adapter, recipe.options["sam"]["unit"])


def embedding(model: LMSeg) -> int:
    """D of the class embeddings: one row holds all prompts that have a cost channel of their own."""
    return model.config.clip.embedding * model.config.aggregation.prompts


def text_tower(model: LMSeg) -> ClipText | None:
    """CLIP's text encoder, or None where the checkpoint has none."""
    return model.clip if model.config.text else None


def transforms(recipe: Recipe) -> dict[str, ImageTransform]:
    """The network inputs; the pipeline brings each view to its side."""
    sam = {"image_sam": ImageTransform(SAM_MEAN, SAM_STD)} if recipe.options["sam"] else {}
    return {"image_clip": ImageTransform(CLIP_MEAN, CLIP_STD)} | sam


def resolved(model: LMSeg, recipe: Recipe) -> dict[str, Any]:
    """What the bundle's recipe holds for this family alone."""
    sam = recipe.options["sam"]
    return {
        "names": recipe.options["names"],
        "window": WINDOW,
        "stride": STRIDE,
        "sides": {"image_clip": recipe.options["side"]} | ({"image_sam": sam["side"]} if sam else {}),
        "classes_at_once": PAD_LENGTH,
        "pooling": recipe.options["pooling"],
        "sam": sam,
    }


def plans(model: LMSeg, recipe: Recipe, canvas: Size) -> list[GraphPlan]:
    """The graphs of one canvas, in the order they run."""
    maps, picked = ["guidance_2", "guidance_4"], {"picked": {1: "S"}, "picked_text": {1: "S"}}
    chosen, fused = ["text", "slots", "shared"], model.config.sam is not None
    axes = {"C": (1, 150, MOST_CLASSES), "S": (1, 150, PAD_LENGTH)}
    dynamic = {"text": {0: "C"}, "slots": {0: "S"}, **picked}
    clip = "clip_features" if fused else "features"
    made = [GraphPlan("clip", ClipGraph(model), canvas, ["image_clip"], [clip, *maps])]
    if fused:
        made.append(GraphPlan("sam", SamGraph(model), canvas, ["image_sam"], ["sam_features"]))
        inputs, outputs = [clip, "sam_features", *chosen], ["features", *picked]
        made.append(GraphPlan("rank", FusedRank(model), canvas, inputs, outputs, dynamic, axes))
    else:
        rank = Rank(model.config.aggregation.prompts)
        made.append(GraphPlan("rank", rank, canvas, [clip, *chosen], list(picked), dynamic, axes))
    inputs = ["features", *maps, "picked_text"] + ([clip] if model.config.appearance == "clip" and fused else [])
    dynamic, axes = {"picked_text": {1: "S"}, "logits": {1: "S"}}, {"S": axes["S"]}
    return [
        *made,
        GraphPlan(
            "aggregate", AggregateGraph(model, PARTS[views(canvas) > 1]), canvas, inputs, ["logits"], dynamic, axes
        ),
    ]


def case(model: LMSeg, image: npt.NDArray[np.uint8], text: Tensor, number: int) -> dict[str, Any]:
    """See `Family`."""
    return reference.embedded_case(image, text, number)


def labels(values: Mapping[str, Tensor], canvas: Size) -> npt.NDArray[np.uint16]:
    """The label map as the authors compose it: the mean of the windows' scores and those of the whole image."""
    scores = _in_order(values["logits"], values["picked"])
    if len(scores) == 1:
        return reference.decided(_resized(scores.sigmoid(), canvas)[0])
    shown = _resized(scores, (WINDOW, WINDOW)).sigmoid()
    total, cover = torch.zeros(shown.shape[1], *canvas), torch.zeros(canvas)
    corners = [
        (y, x) for y in range(0, canvas[0] - WINDOW + 1, STRIDE) for x in range(0, canvas[1] - WINDOW + 1, STRIDE)
    ]
    for (y, x), window in zip(corners, shown[:-1], strict=True):
        total[:, y : y + WINDOW, x : x + WINDOW] += window
        cover[y : y + WINDOW, x : x + WINDOW] += 1
    return reference.decided((total / cover + _resized(shown[-1:], canvas)[0]) / 2)


def _in_order(logits: Tensor, picked: Tensor) -> Tensor:
    """Logits (B, S, h, w) in the order of the classes' numbers; what was not picked has -100, as with the authors."""
    full = logits.new_full((logits.shape[0], int(picked.max()) + 1, *logits.shape[2:]), -100.0)
    return full.scatter(1, picked.long()[..., None, None].expand_as(logits), logits)


def _resized(maps: Tensor, size: Size) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
