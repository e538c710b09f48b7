"""The masked-attention decoder with EBSeg's three readings of the last masks (Cheng et al. 2022; Shan et al. 2024).

Parameters carry the published names. Exact rewrites: resizing commutes with the product of query and feature, so the
masks that only block attention are made at the size they block; the class embedding and the attention bias, which
inference reads of the last prediction alone, are made once; and the bias never expands the mask features to heads x
channels, since the last layer of `attn_proj` is linear and goes to the queries' side.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .fixed import Fixed, Project
from .layers import Perceptron, attend, max_pool_to, merge_heads, resize, sine_positions, split_heads, unit
from .pixel_decoder import LEVELS, DecoderConfig

Size = tuple[int, int]


class MaskDecoder(Fixed):
    """Mask features and three maps → mask logits, class embedding A, attention bias."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.query_feat = nn.Embedding(config.queries, width)
        self.query_embed = nn.Embedding(config.queries, width)
        self.level_embed = nn.Embedding(LEVELS, width)
        layers = range(config.decoder_layers)
        self.transformer_cross_attention_layers = nn.ModuleList(
            AttentionLayer(config, "multihead_attn") for _ in layers
        )
        self.transformer_self_attention_layers = nn.ModuleList(AttentionLayer(config, "self_attn") for _ in layers)
        self.transformer_ffn_layers = nn.ModuleList(FeedForwardLayer(config) for _ in layers)
        self.decoder_norm = nn.LayerNorm(width)
        self.mask_embed = Perceptron(width, width, width, 3)
        self.pool_proj = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.mask_embed1 = Perceptron(width, width, config.embedding, 3)
        self.logit_scale = nn.Parameter(torch.ones(()))
        self.attn_proj = Perceptron(width, width, width * config.bias_heads, 3)
        self.bias_scaling = nn.Linear(1, 1)
        self.fp32_threshold, self.fp32_masks, self.fp32_pool = BlockingMask(), Masks(), PooledMean()
        self.bias = Project()

    def forward(self, features: Tensor, maps: list[Tensor], clip_grid: Size) -> tuple[Tensor, Tensor, Tensor]:
        """Read features (B, width, H/4, W/4) and three maps (B, S, width) of strides 32, 16, 8.

        Returns mask logits (B, Q, H/4, W/4), embedding A (B, Q, D), attention bias (B, heads, Q, gh*gw).
        """
        sizes = [(int(features.shape[2]) // stride, int(features.shape[3]) // stride) for stride in (8, 4, 2)]
        batch = features.shape[0]
        positions = [self.derive(f"positions{i}", partial(_positions, size, features)) for i, size in enumerate(sizes)]
        values = [maps[i] + self.level_embed.weight[i] for i in range(LEVELS)]
        keys = [values[i] + positions[i] for i in range(LEVELS)]
        small = [resize(features, size).flatten(2) for size in sizes]
        place = self.query_embed.weight[None]
        x = self.query_feat.weight[None].expand(batch, -1, -1)
        for i in range(self.config.decoder_layers):
            level = i % LEVELS
            blocked = self.fp32_threshold(self.mask_embed(self.decoder_norm(x)), small[level])
            x = self.transformer_cross_attention_layers[i](x, place, keys[level], values[level], blocked)
            x = self.transformer_self_attention_layers[i](x, place, x + place, x)
            x = self.transformer_ffn_layers[i](x)
        return self._predict(self.decoder_norm(x), features, clip_grid)

    def _predict(self, queries: Tensor, features: Tensor, clip_grid: Size) -> tuple[Tensor, Tensor, Tensor]:
        embed = self.mask_embed(queries)
        masks = self.fp32_masks(embed, features)
        pooled = self.pool_proj(self.fp32_pool(masks, features))
        embedding = unit(self.mask_embed1(pooled + queries)) * self.logit_scale.clamp(max=10.0)
        return masks, embedding, self._bias(embed, features, clip_grid)

    def _bias(self, embed: Tensor, features: Tensor, grid: Size) -> Tensor:
        batch, queries, width = embed.shape
        heads = self.config.bias_heads
        layers: Any = self.attn_proj.layers
        first, second, last = layers
        hidden = features
        for layer in (first, second):
            hidden = F.conv2d(hidden, layer.weight[:, :, None, None], layer.bias).relu()
        scale, shift = self.bias_scaling.weight[0, 0], self.bias_scaling.bias[0]
        weight = self.derive("bias_weight", lambda: last.weight.reshape(heads, width, width) * scale)
        constant = self.derive("bias_bias", lambda: last.bias.reshape(heads, width, 1) * scale)
        rows = embed[:, None] @ weight  # (B, heads, Q, width)
        offset = embed[:, None] @ constant + shift  # (B, heads, Q, 1)
        bias = self.bias(rows.reshape(batch, heads * queries, width), hidden.flatten(2))
        bias = (bias + offset.reshape(batch, heads * queries, 1)).reshape(batch, -1, *features.shape[2:])
        return max_pool_to(bias, grid).reshape(batch, heads, queries, grid[0] * grid[1])


def _positions(size: Size, like: Tensor) -> Tensor:
    return sine_positions(size, like.shape[1]).to(like)


class BlockingMask(nn.Module):
    """-1e4 where a query's mask is off, (B, 1, Q, S); a mask that is off everywhere blocks nothing.

    -1e4 fits half precision and weighs exactly zero after the softmax. The comparison runs in fp32: rounding would flip
    cells.
    """

    def forward(self, embed: Tensor, features: Tensor) -> Tensor:
        logits = embed @ features
        blocked = (logits < 0) & (logits.amax(dim=-1, keepdim=True) >= 0)
        return torch.where(blocked, -1e4, 0.0)[:, None]


class Masks(nn.Module):
    """(B, Q, C), (B, C, H, W) → logits (B, Q, H, W)."""

    def forward(self, embed: Tensor, features: Tensor) -> Tensor:
        return (embed @ features.flatten(2)).reshape(*embed.shape[:2], *features.shape[2:])


class PooledMean(nn.Module):
    """Mean of features (B, C, H, W) over the cells where a mask logit is positive: (B, Q, C)."""

    def forward(self, masks: Tensor, features: Tensor) -> Tensor:
        inside = (masks.flatten(2) > 0).to(features.dtype)
        return (inside @ features.flatten(2).transpose(1, 2)) / (inside.sum(dim=2, keepdim=True) + 1e-8)


class AttentionLayer(nn.Module):
    """Post-norm attention; the weights lie under the name that the published file gives them."""

    def __init__(self, config: DecoderConfig, name: str) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, QueryAttention(config.width, config.heads))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x: Tensor, place: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
        attention = getattr(self, self.name)
        return self.norm(x + attention(x + place, keys, values, bias))


class QueryAttention(Fixed):
    """torch.nn.MultiheadAttention's weights, with q, k and v as three products."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        self.q, self.k, self.v = Project(), Project(), Project()

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        q, k, v = (self._project(x, name) for x, name in ((queries, "q"), (keys, "k"), (values, "v")))
        return self.out_proj(merge_heads(attend(q, k, v, bias)))

    def _project(self, x: Tensor, name: str) -> Tensor:
        width = x.shape[-1]
        rows = slice("qkv".index(name) * width, ("qkv".index(name) + 1) * width)
        scale = (width // self.heads) ** -0.5 if name == "q" else 1.0
        weight = self.derive(f"{name}_weight", lambda: (self.in_proj_weight[rows] * scale).t())
        bias = self.derive(f"{name}_bias", lambda: self.in_proj_bias[rows] * scale)
        project: Project = getattr(self, name)
        return split_heads(project(x, weight, bias), self.heads)


class FeedForwardLayer(nn.Module):
    """Post-norm perceptron with ReLU."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.linear1 = nn.Linear(config.width, config.decoder_hidden)
        self.linear2 = nn.Linear(config.decoder_hidden, config.width)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.linear2(self.linear1(x).relu()))
