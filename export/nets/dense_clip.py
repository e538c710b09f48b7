"""CLIP's image encoder as CAT-Seg runs it: dense features of the last block's values, and two early maps as guidance.

Parameters carry the names of the published files (Cho et al., CVPR 2024; cvlab-kaist/CAT-Seg). In the last block no
token attends to another: each gets its own value through the output projection, and the class token's residual instead
of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .clip import ClipAttention, ClipConfig, ClipText, PlainBlock
from .fixed import Fixed
from .layers import merge_heads, resize_grid, to_tokens

Size = tuple[int, int]


class SplitAttention(ClipAttention):
    """Weights named as torch.nn.MultiheadAttention names them where q, k and v are apart, with one bias for all."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(heads)
        self.q_proj_weight = nn.Parameter(torch.zeros(width, width))
        self.k_proj_weight = nn.Parameter(torch.zeros(width, width))
        self.v_proj_weight = nn.Parameter(torch.zeros(width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def fused(self) -> tuple[Tensor, Tensor]:
        return torch.cat((self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)), self.in_proj_bias

    def output(self, y: Tensor) -> Tensor:
        return self.out_proj(y)


class SplitBlock(PlainBlock):
    """Pre-norm CLIP block over (B, N, C)."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__(config)
        self.attn: ClipAttention = SplitAttention(config.width, config.heads)

    def dense(self, x: Tensor) -> Tensor:
        """All tokens (B, 1+L, C) → patch tokens (B, L, C), without attention: the last block of the dense encoder."""
        values = merge_heads(self.attn.project(self.ln_1(x[:, 1:]), "v"))
        y = x[:, :1] + self.attn.output(values)
        return y + self.mlp(self.ln_2(y))


class DenseClip(Fixed):
    """Image (B, 3, S, S), CLIP-normalised → dense features and the two guidance taps.

    Returns features (B, L, D), not of unit length, and the patch tokens (B, L, width) after the blocks of `taps`;
    L = (S // patch)², row-major.
    """

    def __init__(self, config: ClipConfig, taps: tuple[int, int]) -> None:
        super().__init__()
        self.config, self.taps = config, taps
        self.class_embedding = nn.Parameter(torch.zeros(config.width))
        self.positional_embedding = nn.Parameter(torch.zeros(1 + config.grid**2, config.width))
        self.conv1 = nn.Conv2d(3, config.width, kernel_size=config.patch, stride=config.patch, bias=False)
        self.ln_pre = nn.LayerNorm(config.width)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(SplitBlock(config) for _ in range(config.trunk))
        self.ln_post = nn.LayerNorm(config.width)
        self.proj = nn.Parameter(torch.zeros(config.width, config.embedding))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        size = int(image.shape[-2]) // self.config.patch, int(image.shape[-1]) // self.config.patch
        patches = to_tokens(self.conv1(image)) + self.derive("positions", lambda: self._positions(size))
        first = self.derive("class_token", lambda: (self.class_embedding + self.positional_embedding[0])[None, None])
        x = self.ln_pre(torch.cat((first.expand(patches.shape[0], -1, -1), patches), dim=1))
        blocks: Any = self.transformer.resblocks
        guides = []
        for i, block in enumerate(blocks[:-1]):
            x = block(x)
            if i in self.taps:
                guides.append(x[:, 1:])
        return (self.ln_post(blocks[-1].dense(x)) @ self.proj, *guides)

    def _positions(self, size: Size) -> Tensor:
        return resize_grid(self.positional_embedding[None, 1:], (self.config.grid,) * 2, size)


class SplitClip(ClipText):
    """Both towers under the published names: the text tower's at the top, the image encoder's under `visual`."""

    def __init__(self, image: ClipConfig, taps: tuple[int, int], text: tuple[int, int, int, int, int] | None) -> None:
        width, heads, depth, context, words = text or (1, 1, 0, 0, 0)
        super().__init__(width, heads, depth, context, words, embedding=image.embedding)
        del self.bg_embed
        config = ClipConfig(width=width, heads=heads, hidden=4 * width)
        self.transformer.resblocks = nn.ModuleList(SplitBlock(config) for _ in range(depth))
        if text is None:
            for name in ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection"):
                delattr(self, name)
        self.visual = DenseClip(image, taps)
