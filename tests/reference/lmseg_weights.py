"""Stand-ins of CAT-Seg and LMSeg at full size: names and shapes of the published files, seeded random numbers."""

from __future__ import annotations

from dataclasses import replace

import torch

from edgeseg.export.nets.aggregation import AggregationConfig
from edgeseg.export.nets.clip import ClipConfig
from edgeseg.export.nets.lmseg import FusionConfig, LMSeg, LMSegConfig
from edgeseg.export.nets.sam import SamConfig
from edgeseg.export.nets.swin import shift_mask
from tests.export.small_lmseg import synth_lmseg

MODELS = ("catseg-b", "catseg-l", "lmseg-b", "lmseg-l")


def full_config(name: str) -> LMSegConfig:
    """The sizes of one of `MODELS`; LMSeg's SAM is ViT-B, the only one as wide as the features of CLIP ViT-L/14."""
    kind, _, size = name.partition("-")
    large = LMSegConfig(
        clip=ClipConfig(width=1024, heads=16, patch=14, grid=24, trunk=24, hidden=4096, embedding=768),
        taps=(7, 15),
        text=(768, 12, 12, 77, 49408),
        aggregation=AggregationConfig(embedding=768),
    )
    plain = large if size == "l" else LMSegConfig()
    if kind == "catseg":
        return plain
    width = plain.clip.embedding
    return LMSegConfig(
        clip=plain.clip,
        taps=plain.taps,
        text=plain.text,
        aggregation=plain.aggregation,
        sam=SamConfig(),
        fusion=FusionConfig(width, SamConfig.width, adapter=width != SamConfig.width),
    )


def full_weights(name: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """The state dict of one of `MODELS` without its text tower, float32.

    The masks of the shifted windows are the real ones.
    """
    config = replace(full_config(name), text=None)
    with torch.device("meta"):
        shapes = {key: tuple(tensor.shape) for key, tensor in LMSeg(config).state_dict().items()}
    swin = config.aggregation.swin
    mask = shift_mask(swin.grid, swin.window, swin.window // 2)
    return {
        key: mask if key.endswith("attn_mask") else torch.from_numpy(synth_lmseg(key, shape, seed))
        for key, shape in shapes.items()
    }
