"""CLIP's image encoder as EBSeg runs it: a trunk with a second, "surgery" stream, and a tail that reads masks.

Parameters carry the published names. The surgery stream r collects proj(softmax(v vᵀ/√d) v) of every block from
`surgery_start` on, with v taken from the original stream o, and skips the MLPs (Li et al. 2023, CLIP Surgery). The tail
(Shan et al. 2024) is rewritten exactly: o runs alone, since it never sees the mask tokens, and each mask token attends
to itself and to the patches under its bias (the entries of -100, which weigh e^-100, are dropped); the last block's own
o is not computed, since nothing reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .fixed import Fixed, Project
from .layers import attend, merge_heads, resize, resize_grid, split_heads, to_tokens, unit

Size = tuple[int, int]


@dataclass(frozen=True)
class ClipConfig:
    """Sizes of the image encoder; `trunk` + `tail` blocks, surgery from block `surgery_start`, trained grid `grid`."""

    width: int = 768
    heads: int = 12
    patch: int = 16
    grid: int = 14
    trunk: int = 9
    tail: int = 3
    surgery_start: int = 2
    hidden: int = 3072
    embedding: int = 512


class ClipTrunk(Fixed):
    """Image (B, 3, h, w), CLIP-normalised → tokens after each third of the blocks, and the surgery stream.

    Returns, for blocks trunk/3 and 2*trunk/3, the patch tokens (B, L, width); then all tokens (B, 1+L, width) after the
    last block; then the surgery stream (B, 1+L, width). L = (h // patch) * (w // patch), row-major.
    """

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        self.class_embedding = nn.Parameter(torch.zeros(config.width))
        self.positional_embedding = nn.Parameter(torch.zeros(1 + config.grid**2, config.width))
        self.conv1 = nn.Conv2d(3, config.width, kernel_size=config.patch, stride=config.patch, bias=False)
        self.ln_pre = nn.LayerNorm(config.width)
        self.resblocks = nn.ModuleList(
            SurgeryBlock(config) if i >= config.surgery_start else PlainBlock(config) for i in range(config.trunk)
        )
        self.ln_post = nn.LayerNorm(config.width)
        self.proj = nn.Parameter(torch.zeros(config.width, config.embedding))

    def embed(self, image: Tensor) -> Tensor:
        """The tokens (B, 1+L, width) before the first block."""
        size = int(image.shape[-2]) // self.config.patch, int(image.shape[-1]) // self.config.patch
        patches = to_tokens(self.conv1(image)) + self.derive("positions", lambda: self._positions(size))
        first = self.derive("class_token", lambda: (self.class_embedding + self.positional_embedding[0])[None, None])
        return self.ln_pre(torch.cat((first.expand(patches.shape[0], -1, -1), patches), dim=1))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        original = surgery = self.embed(image)
        taps = []
        for i, block in enumerate(self.resblocks, start=1):
            if isinstance(block, SurgeryBlock):
                original, surgery = block(original, surgery)
            else:
                original = surgery = block(original)
            if i * 3 in (self.config.trunk, 2 * self.config.trunk):
                taps.append(original[:, 1:])
        return (*taps, original, surgery)

    def _positions(self, size: Size) -> Tensor:
        return resize_grid(self.positional_embedding[None, 1:], (self.config.grid,) * 2, size)


class ClipTail(Fixed):
    """The blocks after the trunk, run once on the last masks.

    tokens, surgery (B, 1+L, width), bias (B, heads, Q, L), masks (B, Q, H/4, W/4) logits → embedding of each mask token
    (B, Q, D), unit length, and mean surgery feature under each mask (B, Q, D), not of unit length.
    """

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        self.resblocks = nn.ModuleList(SurgeryBlock(config) for _ in range(config.tail))
        self.ln_post = nn.LayerNorm(config.width)
        self.proj = nn.Parameter(torch.zeros(config.width, config.embedding))
        self.fp32_pool = MaskedMean()

    def forward(
        self, tokens: Tensor, surgery: Tensor, bias: Tensor, masks: Tensor, grid: Size
    ) -> tuple[Tensor, Tensor]:
        masked = tokens[:, :1].expand(-1, masks.shape[1], -1)
        blocks: Any = self.resblocks
        for i, block in enumerate(blocks):
            last = i == len(self.resblocks) - 1
            tokens, surgery, masked = block.with_masks(tokens, surgery, masked, bias, last=last)
        features = unit(self.ln_post(surgery[:, 1:]) @ self.proj)
        return unit(self.ln_post(masked) @ self.proj), self.fp32_pool(masks, features, grid)


class MaskedMean(nn.Module):
    """Mean of features (B, L, D) over the cells where the mask logits, resized to the grid, are positive."""

    def forward(self, masks: Tensor, features: Tensor, grid: Size) -> Tensor:
        inside = (resize(masks, grid).flatten(2) > 0).to(features.dtype)
        return (inside @ features) / (inside.sum(dim=2, keepdim=True) + 1e-8)


class ClipMlp(nn.Module):
    """Linear, QuickGELU x*sigmoid(1.702x), Linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, hidden)
        self.c_proj = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.c_fc(x)
        return self.c_proj(y * torch.sigmoid(1.702 * y))


class ClipAttention(Fixed):
    """q, k and v of a fused weight as three products; subclasses name the fused weight as their file does."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = Project(), Project(), Project()

    def fused(self) -> tuple[Tensor, Tensor]:
        """The weight (3C, C) and bias (3C,) that hold q, k and v one after the other."""
        raise NotImplementedError

    def output(self, y: Tensor) -> Tensor:
        """The output projection of (B, N, C)."""
        raise NotImplementedError

    def project(self, x: Tensor, name: str) -> Tensor:
        """One of "q" (scaled by 1/√d), "k", "v" of (B, N, C), as heads (B, h, N, d)."""
        return split_heads(self.flat(x, name), self.heads)

    def flat(self, x: Tensor, name: str) -> Tensor:
        """The same before it is split into heads."""
        width = x.shape[-1]
        rows = slice("qkv".index(name) * width, ("qkv".index(name) + 1) * width)
        scale = (width // self.heads) ** -0.5 if name == "q" else 1.0
        weight = self.derive(f"{name}_weight", lambda: (self.fused()[0][rows] * scale).t())
        bias = self.derive(f"{name}_bias", lambda: self.fused()[1][rows] * scale)
        project: Project = getattr(self, name)
        return project(x, weight, bias)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = (self.project(x, name) for name in "qkv")
        return self.output(merge_heads(attend(q, k, v, mask)))


class PackedAttention(ClipAttention):
    """Weights named as torch.nn.MultiheadAttention names them (open_clip's blocks)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(heads)
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def fused(self) -> tuple[Tensor, Tensor]:
        return self.in_proj_weight, self.in_proj_bias

    def output(self, y: Tensor) -> Tensor:
        return self.out_proj(y)


class SurgeryAttention(ClipAttention):
    """Weights named as EBSeg's surgery blocks name them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(heads)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.scale = (width // heads) ** -0.5

    def fused(self) -> tuple[Tensor, Tensor]:
        return self.qkv.weight, self.qkv.bias

    def output(self, y: Tensor) -> Tensor:
        return self.proj(y)

    def self_similar(self, v: Tensor) -> Tensor:
        """proj(softmax(v vᵀ/√d) v) of heads (B, h, N, d): the surgery path."""
        return self.proj(merge_heads(attend(v, v * self.scale, v)))


class PlainBlock(nn.Module):
    """Pre-norm CLIP block over (B, N, C)."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.width)
        self.attn: ClipAttention = PackedAttention(config.width, config.heads)
        self.ln_2 = nn.LayerNorm(config.width)
        self.mlp = ClipMlp(config.width, config.hidden)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.ln_1(x), mask)
        return x + self.mlp(self.ln_2(x))


class SurgeryBlock(nn.Module):
    """Pre-norm CLIP block that also advances the surgery stream, and in the tail the mask tokens."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.width)
        self.attn = SurgeryAttention(config.width, config.heads)
        self.ln_2 = nn.LayerNorm(config.width)
        self.mlp = ClipMlp(config.width, config.hidden)

    def forward(self, original: Tensor, surgery: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = (self.attn.project(self.ln_1(original), name) for name in "qkv")
        return self._advance(original, merge_heads(attend(q, k, v))), surgery + self.attn.self_similar(v)

    def with_masks(
        self, original: Tensor, surgery: Tensor, masked: Tensor, bias: Tensor, *, last: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One block of the tail; (B, Q, C) mask tokens see themselves and the patches, under bias (B, h, Q, L)."""
        normed = self.ln_1(original)
        k, v = self.attn.project(normed, "k"), self.attn.project(normed, "v")
        surgery = surgery + self.attn.self_similar(v)
        masked = self._advance(masked, merge_heads(self._read(self.ln_1(masked), k[:, :, 1:], v[:, :, 1:], bias)))
        if not last:
            original = self._advance(original, merge_heads(attend(self.attn.project(normed, "q"), k, v)))
        return original, surgery, masked

    def _read(self, masked: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        own_q, own_k, own_v = (self.attn.project(masked, name) for name in "qkv")
        to_patches = own_q @ k.transpose(-2, -1) + bias
        to_self = (own_q * own_k).sum(dim=-1, keepdim=True)
        weights = torch.cat((to_patches, to_self), dim=-1).softmax(dim=-1)
        return weights[..., :-1] @ v + weights[..., -1:] * own_v

    def _advance(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.attn.output(attended)
        return x + self.mlp(self.ln_2(x))


class ClipText(Fixed):
    """CLIP's text encoder: tokens (N, T) int, eot (N,) int, the index of the end token → unit embeddings (N, D).

    The tower is causal, so T need only reach the end token: shorter than the trained context gives the same embedding.
    """

    def __init__(self, width: int, heads: int, depth: int, context: int, words: int, *, embedding: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(words, width)
        self.positional_embedding = nn.Parameter(torch.zeros(context, width))
        self.transformer = nn.Module()
        config = ClipConfig(width=width, heads=heads, hidden=4 * width)
        self.transformer.resblocks = nn.ModuleList(PlainBlock(config) for _ in range(depth))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.zeros(width, embedding))
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.bg_embed = nn.Parameter(torch.zeros(1, embedding))

    def forward(self, tokens: Tensor, eot: Tensor) -> Tensor:
        length = tokens.shape[1]
        mask = self.derive("causal", self._causal)[:length, :length]
        x = self.token_embedding(tokens) + self.positional_embedding[:length]
        blocks: Any = self.transformer.resblocks
        for block in blocks:
            x = block(x, mask)
        # One row is picked by a product with 0 and 1: no gather with data-dependent indices, which engines dislike.
        places = self.derive("places", lambda: torch.arange(self.positional_embedding.shape[0], dtype=torch.int32))
        pick = (places[None, :length] == eot[:, None]).to(x.dtype)
        ends = (pick[:, None] @ self.ln_final(x))[:, 0]
        return F.normalize(ends @ self.text_projection, dim=-1)

    def _causal(self) -> Tensor:
        context = self.positional_embedding.shape[0]
        return torch.full((context, context), -1e4).triu(1)
