"""The trained encoders that other tiny models start from: ebseg-tiny's, block by block."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

START = Path(__file__).resolve().parents[1] / "weights/ebseg-tiny.safetensors"

BLOCK = re.compile(r"(clip_visual_extractor|clip_rec_head)\.resblocks\.(\d+)\.(.+)")
"""EBSeg's names of CLIP's blocks, in the trunk and in the tail."""

AROUND = re.compile(
    r"clip_visual_extractor\.(class_embedding|positional_embedding|conv1\..*|ln_pre\..*)|clip_rec_head\.(ln_post\..*|proj)"
)
"""And of what stands in front of them and behind them."""


def clip_blocks(ebseg: Mapping[str, Tensor]) -> Iterator[tuple[int, str, Tensor]]:
    """(number, name within the block, float32) of CLIP's; the blocks of trunk and tail follow one another."""
    found = [(BLOCK.fullmatch(name), value) for name, value in ebseg.items()]
    trunk = 1 + max(int(match[2]) for match, _ in found if match and match[1] == "clip_visual_extractor")
    for match, value in found:
        if match:
            yield int(match[2]) + (trunk if match[1] == "clip_rec_head" else 0), match[3], value.float()


def around_blocks(ebseg: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """(name, float32) of the rest of CLIP's image encoder."""
    for name, value in ebseg.items():
        if match := AROUND.fullmatch(name):
            yield match[1] or match[2], value.float()


def sam(ebseg: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """SAM's image encoder, float32."""
    prefix = "backbone."
    return {name.removeprefix(prefix): value.float() for name, value in ebseg.items() if name.startswith(prefix)}
