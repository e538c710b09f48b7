"""MiniLM as a sentence encoder (sentence-transformers/all-MiniLM-L6-v2): BERT's encoder, the mean over a text's tokens.

Devlin et al. 2019 (post-norm blocks, GELU), distilled by Wang et al. 2020; the pooling is Reimers and Gurevych 2019.
Parameters carry the published names. The published pooler is left out: a mean of the tokens takes its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .fixed import Fixed, Project
from .layers import attend, merge_heads, split_heads

EPSILON = 1e-12


@dataclass(frozen=True)
class MiniLMConfig:
    """Sizes of the encoder; `positions` is the length of its table, of which its authors use `context`."""

    width: int = 384
    heads: int = 12
    depth: int = 6
    hidden: int = 1536
    words: int = 30522
    positions: int = 512
    context: int = 256


class MiniLM(Fixed):
    """tokens (N, T) int, length (N,) int, how many of them are the text's → unit embeddings (N, width).

    Every token sees every other, so what follows the first `length` tokens is masked: it may be anything.
    """

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList(Block(config) for _ in range(config.depth))

    def forward(self, tokens: Tensor, length: Tensor) -> Tensor:
        x = self.embeddings(tokens)
        places = self.derive("places", lambda: torch.arange(self.config.context, dtype=torch.int32))
        inside = (places[None, : tokens.shape[1]] < length[:, None]).to(x.dtype)[:, None]
        bias = ((inside - 1) * 1e4)[:, None]  # e^-10000 is 0 in any precision, and 10000 fits half
        blocks: Any = self.encoder.layer
        for block in blocks:
            x = block(x, bias)
        share = inside / length.to(x.dtype)[:, None, None]
        return F.normalize((share @ x)[:, 0], dim=-1)


class Embeddings(Fixed):
    """Tokens (N, T) → (N, T, width): word, position and first segment, normalised."""

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__()
        self.context = config.context
        self.word_embeddings = nn.Embedding(config.words, config.width)
        self.position_embeddings = nn.Embedding(config.positions, config.width)
        self.token_type_embeddings = nn.Embedding(2, config.width)
        self.LayerNorm = nn.LayerNorm(config.width, eps=EPSILON)

    def forward(self, tokens: Tensor) -> Tensor:
        positions = self.derive("positions", self._positions)[: tokens.shape[1]]
        return self.LayerNorm(self.word_embeddings(tokens) + positions)

    def _positions(self) -> Tensor:
        return self.position_embeddings.weight[: self.context] + self.token_type_embeddings.weight[0]


class Block(nn.Module):
    """Attention and MLP over (N, T, width), each added to what it read and then normalised."""

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__()
        self.attention = nn.Module()
        self.attention.self = SelfAttention(config)
        self.attention.output = AddAndNorm(config.width, config.width)
        self.intermediate = nn.Module()
        self.intermediate.dense = nn.Linear(config.width, config.hidden)
        self.output = AddAndNorm(config.hidden, config.width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        attention: Any = self.attention
        intermediate: Any = self.intermediate
        x = attention.output(attention.self(x, bias), x)
        return self.output(F.gelu(intermediate.dense(x)), x)


class SelfAttention(Fixed):
    """(N, T, width), bias (N, 1, 1, T) → (N, T, width), before the output projection."""

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)
        self.q = Project()

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        scale = (x.shape[-1] // self.heads) ** -0.5
        weight = self.derive("q_weight", lambda: (self.query.weight * scale).t())
        q = self.q(x, weight, self.derive("q_bias", lambda: self.query.bias * scale))
        q, k, v = (split_heads(y, self.heads) for y in (q, self.key(x), self.value(x)))
        return merge_heads(attend(q, k, v, bias))


class AddAndNorm(nn.Module):
    """A projection, added to the block's input and normalised."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, width)
        self.LayerNorm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(y) + x)
