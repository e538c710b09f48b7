"""DINOv2's image encoder (Oquab et al. 2023): a plain ViT whose residuals are scaled channel by channel (LayerScale).

Parameters carry the published names. Positions are resized as the published code does it: by a factor that is a tenth
of a cell too large, so that the floor of its product is the wanted size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blip_vit import EPSILON, Attention, Mlp
from .fixed import Fixed
from .layers import to_tokens

OFFSET = 0.1


@dataclass(frozen=True)
class DinoConfig:
    """Sizes of the encoder; `grid` is the side of its trained position table."""

    width: int = 1024
    depth: int = 24
    heads: int = 16
    patch: int = 14
    grid: int = 37
    hidden: int = 4096


class DinoViT(Fixed):
    """Image (B, 3, H, W), ImageNet-normalised → tokens (B, 1 + L, width): `embed` it, then go through `blocks`.

    The first token is the class token; the patches follow row-major. The published norm behind the blocks is left out:
    whoever reads a block's tokens has a norm of its own.
    """

    def __init__(self, config: DinoConfig) -> None:
        super().__init__()
        self.config = config
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.grid**2, config.width))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, config.width, kernel_size=config.patch, stride=config.patch)
        self.blocks = nn.ModuleList(DinoBlock(config) for _ in range(config.depth))

    def embed(self, image: Tensor) -> Tensor:
        """The tokens before the first block."""
        proj = cast(nn.Conv2d, self.patch_embed.proj)
        size = int(image.shape[-2]) // self.config.patch, int(image.shape[-1]) // self.config.patch
        patches = to_tokens(proj(image)) + self.derive("positions", lambda: self._positions(size))
        first = self.derive("class_token", lambda: self.cls_token + self.pos_embed[:, :1])
        return torch.cat((first.expand(patches.shape[0], -1, -1), patches), dim=1)

    def _positions(self, size: tuple[int, int]) -> Tensor:
        grid, table = self.config.grid, self.pos_embed[:, 1:]
        if size == (grid, grid):
            return table
        image = table.reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
        factors = (size[0] + OFFSET) / grid, (size[1] + OFFSET) / grid
        return to_tokens(F.interpolate(image, scale_factor=factors, mode="bicubic", align_corners=False))


class DinoBlock(nn.Module):
    """Pre-norm block over (B, N, width)."""

    def __init__(self, config: DinoConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=EPSILON)
        self.attn = Attention(config.width, config.heads)
        self.ls1 = LayerScale(config.width)
        self.norm2 = nn.LayerNorm(config.width, eps=EPSILON)
        self.mlp = Mlp(config.width, config.hidden)
        self.ls2 = LayerScale(config.width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class LayerScale(nn.Module):
    """One factor per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma
