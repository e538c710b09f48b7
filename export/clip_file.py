"""Released CLIP files, OpenAI's state dicts and open_clip's: their sizes, and their tensors under our names."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from .checkpoint import StateDict
from .nets.clip import ClipConfig, ClipText

# What a file holds beside the two towers: sizes as numbers, and the causal mask.
IGNORED = re.compile(r"input_resolution|context_length|vocab_size|attn_mask")


def is_clip(state: Mapping[str, Tensor]) -> bool:
    """Whether these tensors look like a CLIP with a ViT, of any size."""
    first = state.get("visual.conv1.weight")
    return first is not None and first.ndim == 4 and "text_projection" in state


def image_config(state: Mapping[str, Tensor], surgery: int, head: int) -> ClipConfig:
    """Sizes of the image encoder, the last `surgery` blocks with a second stream, each head `head` channels wide.

    Raises ValueError, LookupError.
    """
    width, _, _, patch = state["visual.conv1.weight"].shape
    blocks = {match[1] for name in state if (match := re.match(r"visual\.transformer\.resblocks\.(\d+)\.", name))}
    rows = state["visual.positional_embedding"].shape[0] - 1
    if math.isqrt(rows) ** 2 != rows or not blocks:
        raise ValueError(f"its position table has {rows} rows, its image encoder {len(blocks)} blocks")
    return ClipConfig(
        width=width,
        heads=width // head,
        patch=patch,
        grid=math.isqrt(rows),
        trunk=len(blocks),
        tail=0,
        surgery_start=max(len(blocks) - surgery, 0),
        hidden=state["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        embedding=state["visual.proj"].shape[1],
    )


def image_state(state: Mapping[str, Tensor], config: ClipConfig) -> StateDict:
    """The image encoder's tensors under the names of `nets.clip.ClipTrunk`."""
    made: StateDict = {}
    for name, value in state.items():
        if not name.startswith("visual."):
            continue
        short = name.removeprefix("visual.").removeprefix("transformer.")
        block = re.match(r"resblocks\.(\d+)\.", short)
        if block and int(block[1]) >= config.surgery_start:
            short = short.replace("attn.in_proj_", "attn.qkv.").replace("attn.out_proj.", "attn.proj.")
        made[short] = value
    return made


def text_tower(state: Mapping[str, Tensor]) -> tuple[ClipText, StateDict]:
    """CLIP's text encoder without weights, and its tensors under its names. Raises LookupError."""
    words, width = state["token_embedding.weight"].shape
    depth = len({match[1] for name in state if (match := re.match(r"transformer\.resblocks\.(\d+)\.", name))})
    embedding = state["text_projection"].shape[1]
    with torch.device("meta"):
        tower = ClipText(width, width // 64, depth, len(state["positional_embedding"]), words, embedding=embedding)
    mine = {name: value for name, value in state.items() if not name.startswith("visual.")}
    mine = {name: value for name, value in mine.items() if not IGNORED.fullmatch(name)}
    return tower, {**mine, "bg_embed": torch.zeros(1, embedding)}  # the last is EBSeg's, and unused here
