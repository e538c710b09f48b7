"""The pieces of BERT's backward pass, written out: no inference engine differentiates.

Each is a module without weights, so that its nodes carry its name in the graph; those that begin with "fp32_" there are
computed in fp32 where the rest is fp16, because they subtract what is nearly equal. Gradients are taken of sums over
the batch, row by row, so examples do not mix.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .free_heads import split_heads


class NormTape(NamedTuple):
    """What a normalisation's gradient needs: the normalised rows (..., C), 1/deviation (..., 1) and the scale (C,)."""

    normed: Tensor
    inverse: Tensor
    scale: Tensor


class TapedNorm(nn.Module):
    """LayerNorm that keeps its tape."""

    def forward(self, x: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, NormTape]:
        centred = x - x.mean(dim=-1, keepdim=True)
        inverse = torch.rsqrt((centred * centred).mean(dim=-1, keepdim=True) + norm.eps)
        normed = centred * inverse
        return normed * norm.weight + norm.bias, NormTape(normed, inverse, norm.weight)


class NormGradient(nn.Module):
    """Gradient after the norm (..., C) → before it: scaled, without its mean and its part along the normalised row."""

    def forward(self, gradient: Tensor, tape: NormTape) -> Tensor:
        scaled = gradient * tape.scale
        along = (scaled * tape.normed).mean(dim=-1, keepdim=True)
        return (scaled - scaled.mean(dim=-1, keepdim=True) - tape.normed * along) * tape.inverse


class GeluGradient(nn.Module):
    """Gradient after GELU, and the input a of GELU → before it: times Φ(a) + a φ(a)."""

    def forward(self, gradient: Tensor, a: Tensor) -> Tensor:
        below = 0.5 * (1 + torch.erf(a * math.sqrt(0.5)))
        density = torch.exp(a * a * -0.5) * (1 / math.sqrt(2 * math.pi))
        return gradient * (below + a * density)


class SoftmaxGradient(nn.Module):
    """Gradient after a softmax over the last axis, and its result → before it."""

    def forward(self, gradient: Tensor, weights: Tensor) -> Tensor:
        product = gradient * weights
        return product - weights * product.sum(dim=-1, keepdim=True)


class AttentionTape(NamedTuple):
    """What an attention's gradient needs: heads q, k, v (B, h, N, d), its weights (B, h, N, M), its norm's tape."""

    q: Tensor
    k: Tensor
    v: Tensor
    weights: Tensor
    norm: NormTape


class FeedForwardTape(NamedTuple):
    """What a feed-forward layer's gradient needs: the input of GELU (B, N, hidden) and its norm's tape."""

    hidden: Tensor
    norm: NormTape


class Scores(NamedTuple):
    """Gradients inside an attention.

    `residual`: of the sum before the norm (B, N, C). `collected`: of what each head collected (B, h, N, d). `scores`:
    before the softmax (B, h, N, M).
    """

    residual: Tensor
    collected: Tensor
    scores: Tensor


class AttentionGradient(nn.Module):
    """Gradient after an attention and its norm (B, N, C) → down to its scores.

    `output`: the weight (C, h*d) of the projection that follows the heads.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.fp32_norm, self.fp32_softmax = NormGradient(), SoftmaxGradient()

    def forward(self, gradient: Tensor, tape: AttentionTape, output: Tensor) -> Scores:
        residual = self.fp32_norm(gradient, tape.norm)
        collected = split_heads(residual @ output, self.heads)
        return Scores(residual, collected, self.fp32_softmax(collected @ tape.v.transpose(-2, -1), tape.weights))
