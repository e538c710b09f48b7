"""SAM's entry: sizes read from a checkpoint's tensors, the model loaded from it, and the graphs it becomes.

Takes the released files of segment-anything (ViT-B, -L, -H) and of MobileSAM (TinyViT), whose tensors tell which it is.
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

from edgeseg.errors import InputError
from edgeseg.schema import ImageTransform, Size, size_text

from . import reference
from .checkpoint import StateDict, built, fill
from .graphs import GraphPlan
from .nets.sam import SamConfig, taps_of
from .nets.sam_decoder import DecoderConfig
from .nets.segment_anything import SamDecoderGraph, SegmentAnything, SegmentAnythingConfig
from .nets.tiny_vit import TinyVitConfig
from .recipe import Recipe

KEYS = "its keys begin with image_encoder, prompt_encoder, mask_decoder"
ENCODER = "SAM"

CANVAS: Size = (1024, 1024)  # every published SAM was trained for it
PATCH = 16
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
IMAGE, EMBEDDING = "image_sam", "image_embedding"
OUTPUTS = ["prompt_masks", "prompt_iou", "prompt_stability", "prompt_boxes"]

# What a file holds and no graph reads: TinyViT's classifier and counters, its index table, and masks given as prompts.
IGNORED = re.compile(
    r"image_encoder\.(head|norm_head)\..*|.*\.(num_batches_tracked|attention_bias_idxs)|pixel_(mean|std)"
    r"|prompt_encoder\.mask_downscaling\..*"
)


def recognises(state: Mapping[str, Tensor]) -> bool:
    """Whether these tensors look like a SAM, of any size."""
    return "mask_decoder.iou_token.weight" in state and "prompt_encoder.no_mask_embed.weight" in state


def clip_sizes(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Width of the image encoder's last block, 320 of TinyViT, 768, 1024, 1280 of ViT, and its cells' side, pixels."""
    neck = state.get("image_encoder.neck.0.weight")
    return 0 if neck is None else neck.shape[1], PATCH


def fits(state: Mapping[str, Tensor], recipe: Recipe) -> bool:
    """The width tells it."""
    return True


def check_canvas(canvas: Size) -> None:
    """SAM runs at the size it was trained for. Raises InputError for any other."""
    if canvas != CANVAS:
        found = f"SAM was trained for {size_text(CANVAS)}, and every photo is resized into that"
        raise InputError(f"export a canvas of {size_text(canvas)}", found, "leave --size out")


def transforms(recipe: Recipe) -> dict[str, ImageTransform]:
    """The network input, by name."""
    return {IMAGE: ImageTransform(MEAN, STD)}


def load(path: Path, state: StateDict, recipe: Recipe) -> SegmentAnything:
    """The model with the checkpoint's weights, in eval mode.

    Raises:
        CheckpointError: the tensors do not agree with each other, or keys are missing, unexpected or mis-shaped.
    """
    state = {name: value for name, value in state.items() if not IGNORED.fullmatch(name)}
    model = built(path, "a whole SAM checkpoint", lambda: SegmentAnything(detect(state, recipe)))
    return fill(path, model, state)


def detect(state: Mapping[str, Tensor], recipe: Recipe) -> SegmentAnythingConfig:
    """Every size that the tensors tell; the recipe gives the canvas and the decoder's heads."""
    canvas, heads = recipe.canvases[0][0], recipe.options["decoder_heads"]
    tiny = "image_encoder.patch_embed.seq.0.c.weight" in state
    image = _tiny(state, canvas) if tiny else _vit(state)
    if image.grid * PATCH != canvas:
        raise ValueError(f"its embedding of {image.grid} cells is not for a canvas of {canvas} pixels")
    decoder = DecoderConfig(
        width=state["mask_decoder.iou_token.weight"].shape[1],
        heads=heads,
        layers=_count(state, r"mask_decoder\.transformer\.layers\.(\d+)\."),
        hidden=state["mask_decoder.transformer.layers.0.mlp.lin1.weight"].shape[0],
        masks=state["mask_decoder.mask_tokens.weight"].shape[0],
        iou_hidden=state["mask_decoder.iou_prediction_head.layers.0.weight"].shape[0],
    )
    if decoder.width % (2 * decoder.heads):
        raise ValueError(f"{decoder.heads} heads do not divide half of a width of {decoder.width}")
    return SegmentAnythingConfig(image, decoder, canvas)


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[1] for name in state if (match := re.match(pattern, name))})


def _vit(state: Mapping[str, Tensor]) -> SamConfig:
    depth = _count(state, r"image_encoder\.blocks\.(\d+)\.")
    tables = [state[f"image_encoder.blocks.{i}.attn.rel_pos_h"] for i in range(depth)]
    width, _, _, patch = state["image_encoder.patch_embed.proj.weight"].shape
    grid = state["image_encoder.pos_embed"].shape[1]
    taps = taps_of([len(table) for table in tables], grid)
    windows = {(len(table) + 1) // 2 for i, table in enumerate(tables) if i not in taps} or {grid}
    if patch != PATCH or not taps or taps[-1] != depth - 1 or len(windows) != 1:
        raise ValueError(
            f"its patch is {patch}, its global blocks are {taps} of {depth}, its windows {sorted(windows)}"
        )
    hidden = state["image_encoder.blocks.0.mlp.lin1.weight"].shape[0]
    return SamConfig(width, depth, width // tables[0].shape[1], patch, grid, windows.pop(), taps, hidden)


def _tiny(state: Mapping[str, Tensor], canvas: int) -> TinyVitConfig:
    encoder = "image_encoder.layers"
    depths = tuple(_count(state, rf"image_encoder\.layers\.{i}\.blocks\.(\d+)\.") for i in range(4))
    biases = [state[f"{encoder}.{i}.blocks.0.attn.attention_biases"].shape for i in (1, 2, 3)]
    widths = (
        state["image_encoder.patch_embed.seq.2.c.weight"].shape[0],
        *(state[f"{encoder}.{i}.downsample.conv3.c.weight"].shape[0] for i in range(3)),
    )
    return TinyVitConfig(
        image=canvas,
        widths=widths,
        depths=depths,
        heads=(1, *(shape[0] for shape in biases)),
        windows=(1, *(math.isqrt(shape[1]) for shape in biases)),
        neck=state["image_encoder.neck.0.weight"].shape[0],
    )


def embedding(model: SegmentAnything) -> int:
    """Nothing: SAM knows no classes."""
    return 0


def text_tower(model: SegmentAnything) -> None:
    """There is none."""
    return


def resolved(model: SegmentAnything, recipe: Recipe) -> dict[str, Any]:
    """What the bundle's recipe holds for SAM alone."""
    options = recipe.options
    return {"divisor": model.config.canvas, "prompting": options["prompting"], "automatic": options["automatic"]}


def plans(model: SegmentAnything, recipe: Recipe, canvas: Size) -> list[GraphPlan]:
    """Encoder and decoder, in the order they run."""
    inputs = [EMBEDDING, "points", "point_labels", "valid"]
    return [
        GraphPlan("sam_encoder", model.image_encoder, canvas, [IMAGE], [EMBEDDING]),
        # One cell moves the edge of a box.
        GraphPlan("sam_decoder", SamDecoderGraph(model), canvas, inputs, OUTPUTS, unsteady=("prompt_boxes",)),
    ]


def case(model: SegmentAnything, image: npt.NDArray[np.uint8], text: Tensor, number: int) -> dict[str, Any]:
    """The image alone; its prompts are fixed."""
    return {"image": image}


def labels(values: Mapping[str, Tensor], canvas: Size) -> npt.NDArray[np.uint16]:
    """The label map (H, W) of the prompts' single masks, each prompt a class of its own."""
    masks = values["prompt_masks"][:, 0]
    return reference.labels(masks[None], torch.eye(len(masks))[None], canvas)
