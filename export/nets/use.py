"""Universal segment embeddings (Wang et al., CVPR 2024): patches embedded once, segments as weighted means of patches.

`DenseClip` needs no training: the patch features of CLIP's surgery stream already lie in the space of its texts.
`TappedEncoder` is the paper's: tokens of several blocks of CLIP and DINOv2, brought to one width and added up. In
DINOv2's place there may be an encoder of SAM's kind.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .clip import ClipConfig, ClipTrunk
from .dinov2 import DinoConfig, DinoViT
from .layers import unit
from .sam import SamConfig, SamEncoder


class DenseClip(nn.Module):
    """Image (B, 3, h, w), CLIP-normalised → patch embeddings (B, L, D), unit rows, row-major."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.trunk = ClipTrunk(config)

    def forward(self, image: Tensor) -> Tensor:
        surgery = self.trunk(image)[-1]
        return unit(self.trunk.ln_post(surgery[:, 1:]) @ self.trunk.proj)


class TappedEncoder(nn.Module):
    """Two images (B, 3, h, w), CLIP- and ImageNet-normalised → merged patch embeddings (B, L, width), row-major.

    Both encoders have the same grid of patches. z = Σ scale_k LayerNorm(Linear_k(tokens after the k-th tap)) over both.

    Args:
        clip, second: sizes; CLIP's without a surgery stream, the second encoder's with its taps if it is of SAM's kind.
        levels: taps of each encoder, at equal shares of its depth, the last block among them.
        width: of z.
        class_token: z's class token is added to its patches; an encoder of SAM's kind has no part in it.
    """

    def __init__(
        self, clip: ClipConfig, second: DinoConfig | SamConfig, *, levels: int, width: int, class_token: bool
    ) -> None:
        super().__init__()
        self.clip = ClipTrunk(clip)
        self.second = SamEncoder(second) if isinstance(second, SamConfig) else DinoViT(second)
        self.clip_levels = nn.ModuleList(Level(clip.width, width) for _ in range(levels))
        self.second_levels = nn.ModuleList(Level(second.width, width) for _ in range(levels))
        self.scales = nn.Parameter(torch.zeros(2 * levels))
        self.class_token = class_token

    def forward(self, image_clip: Tensor, image_second: Tensor) -> Tensor:
        return self.merge(*self.tokens(image_clip, image_second))

    def tokens(self, image_clip: Tensor, image_second: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """After each tap: CLIP's and the second encoder's, (B, 1 + L, C); (B, L, C) where it has no class token."""
        second, count = self.second, len(self.clip_levels)
        own = _tapped(self.clip.resblocks, self.clip.embed(image_clip), count)
        if isinstance(second, SamEncoder):
            return own, list(second(image_second))
        return own, _tapped(second.blocks, second.embed(image_second), count)

    def merge(self, own: list[Tensor], others: list[Tensor]) -> Tensor:
        """From what `tokens` gives to z, (B, L, width)."""
        levels = [level(tokens) for level, tokens in zip(self.clip_levels, own, strict=True)]
        beside = [level(tokens) for level, tokens in zip(self.second_levels, others, strict=True)]
        if isinstance(self.second, SamEncoder):
            beside = [F.pad(level, (0, 0, 1, 0)) for level in beside]
        merged = levels[0] * self.scales[0]
        for index, level in enumerate([*levels, *beside][1:], start=1):
            merged = merged + level * self.scales[index]
        return merged[:, 1:] + merged[:, :1] if self.class_token else merged[:, 1:]


def _tapped(blocks: Any, tokens: Tensor, count: int) -> list[Tensor]:
    """Tokens after the last block of each of `count` equal shares."""
    taps, kept = [len(blocks) * (number + 1) // count for number in range(count)], []
    for index, block in enumerate(blocks, start=1):
        tokens = block(tokens)
        if index in taps:
            kept.append(tokens)
    return kept


class Level(nn.Module):
    """Tokens (B, N, C) of a block → (B, N, width)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x))


class SegmentHead(nn.Module):
    """Patch embeddings (1, L, C) and segment weights (S, L), rows that sum up to 1 → segment embeddings (S, D), unit.

    Args:
        project: C → D, into the space of the texts; None where the patches are there already.
    """

    def __init__(self, project: nn.Linear | None = None) -> None:
        super().__init__()
        self.project = project
        self.fp32_unit = Unit()

    def forward(self, patches: Tensor, weights: Tensor) -> Tensor:
        mean = weights @ patches[0]
        return self.fp32_unit(mean if self.project is None else self.project(mean))


class Unit(nn.Module):
    """Rows of length one, in fp32: a length is a sum of many squares."""

    def forward(self, x: Tensor) -> Tensor:
        return unit(x)


class SegmentScore(nn.Module):
    """Segment embeddings (S, D), text (C, D), unit rows → class probabilities (1, S, C).

    Args:
        scale: of the cosine, 1 / temperature.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, segments: Tensor, text: Tensor) -> Tensor:
        return (segments @ text.t() * self.scale).softmax(dim=-1)[None]
