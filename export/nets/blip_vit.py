"""BLIP's image encoder (Li et al. 2022): a plain ViT whose patches can be left out.

Parameters carry the published names. Leaving a patch out means what PnP-OVSS (Luo et al. 2024) means by it: its pixels
are zero in the normalised image. The patch embedding is linear in them, so its product is multiplied by the patch's 0
or 1, which is the same and needs no mask of the image's size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .clip import ClipAttention
from .fixed import Fixed
from .layers import attend, resize_grid

EPSILON = 1e-6


@dataclass(frozen=True)
class VitConfig:
    """Sizes of the image encoder; `grid` is the side of its trained position table."""

    width: int = 1024
    depth: int = 24
    heads: int = 16
    patch: int = 16
    grid: int = 24
    hidden: int = 4096


class BlipViT(Fixed):
    """pixels (B, 3, H, W), CLIP-normalised, keep (B, 1, h, w) of 0 and 1, one per patch → tokens (B, 1 + h*w, width).

    The first token is the class token; the patches follow row-major.
    """

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.config = config
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.grid**2, config.width))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, config.width, kernel_size=config.patch, stride=config.patch)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=EPSILON)

    def forward(self, pixels: Tensor, keep: Tensor) -> Tensor:
        proj = cast(nn.Conv2d, self.patch_embed.proj)
        size = int(pixels.shape[-2]) // self.config.patch, int(pixels.shape[-1]) // self.config.patch
        patches = self._tokens(F.conv2d(pixels, proj.weight, stride=proj.stride)) * self._tokens(keep)
        patches = patches + self.derive("positions", lambda: self._positions(size))
        first = self.derive("class_token", lambda: self.cls_token + self.pos_embed[:, :1])
        # One patch times zero gives the batch; `expand` would compute its shape in the graph.
        x = torch.cat((patches[:, :1] * 0 + first, patches), dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def _tokens(self, image: Tensor) -> Tensor:
        """(B, C, h, w) → (B, h*w, C), the extents but B constants."""
        channels, cells = int(image.shape[1]), int(image.shape[2]) * int(image.shape[3])
        return image.reshape(-1, channels, cells).transpose(1, 2)

    def _positions(self, size: tuple[int, int]) -> Tensor:
        """The table at this size, and the patch embedding's bias."""
        bias = cast(nn.Conv2d, self.patch_embed.proj).bias
        assert bias is not None
        return resize_grid(self.pos_embed[:, 1:], (self.config.grid,) * 2, size) + bias


class Block(nn.Module):
    """Pre-norm block over (B, N, width)."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=EPSILON)
        self.attn = Attention(config.width, config.heads)
        self.norm2 = nn.LayerNorm(config.width, eps=EPSILON)
        self.mlp = Mlp(config.width, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Attention(ClipAttention):
    """Weights named as timm names them. Only the batch may vary in the graph: the other extents are constants."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(heads)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def fused(self) -> tuple[Tensor, Tensor]:
        return self.qkv.weight, self.qkv.bias

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        length, width = int(x.shape[1]), int(x.shape[2])
        q, k, v = (
            self.flat(x, name).reshape(-1, length, self.heads, width // self.heads).transpose(1, 2) for name in "qkv"
        )
        return self.proj(attend(q, k, v, mask).transpose(1, 2).reshape(-1, length, width))


class Mlp(nn.Module):
    """Linear, GELU, Linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))
