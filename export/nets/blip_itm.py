"""BLIP's image-text match with the map of what made it match (Li et al. 2022; GradCAM after Selvaraju et al. 2017).

A BERT whose layers each attend to the text, then to the image. Its map is `A * max(dz/dA, 0)`, with A the weights of
one cross-attention head and z the logit of "match", as PnP-OVSS (Luo et al. 2024) takes it. The gradient is not left to
a framework but written out from the logit down to that head, so the whole is one forward graph: below the head nothing
is differentiated, nor is the image encoder. `gradcam.py` has the pieces. Parameters carry the published names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .fixed import Fixed, Project
from .free_heads import merge_heads, split_heads
from .gradcam import (
    AttentionGradient,
    AttentionTape,
    FeedForwardTape,
    GeluGradient,
    NormGradient,
    TapedNorm,
)
from .layers import attend

EPSILON = 1e-12
SEED_SCALE = 1024.0
"""The gradient is computed this many times as large, and the map divided by it: fp16 would round its tail to zero."""

MATCH = 1  # the index of "match" among the two logits


@dataclass(frozen=True)
class ItmConfig:
    """Sizes of the text encoder, and whose map is taken: block `layer` (from 0), cross-attention head `head`.

    `seed`: "logit" differentiates the logit of "match", "margin" its distance from the other one.
    """

    width: int = 768
    heads: int = 12
    depth: int = 12
    hidden: int = 3072
    words: int = 30524
    positions: int = 512
    image_width: int = 1024
    layer: int = 7
    head: int = 9
    seed: str = "logit"


class BlipItm(nn.Module):
    """image_embeds (I, 1+L, Di), input_ids (B, T) int, attn_mask (B, T) int of 0 and 1 → cam (B, T, L), logits (B, 2).

    I is B, or 1: one image for all captions. What stands where the mask is 0 changes nothing else. The logits are
    (no match, match). The map's first column, the image's class token, is left out.
    """

    def __init__(self, config: ItmConfig) -> None:
        super().__init__()
        self.config = config
        self.text_encoder = nn.Module()
        self.text_encoder.embeddings = Embeddings(config)
        self.text_encoder.encoder = nn.Module()
        self.text_encoder.encoder.layer = nn.ModuleList(Layer(config) for _ in range(config.depth))
        self.itm_head = nn.Linear(config.width, 2)
        self.fp32_map = HeadMap()

    def forward(self, image_embeds: Tensor, input_ids: Tensor, attn_mask: Tensor) -> tuple[Tensor, Tensor]:
        encoder: Any = self.text_encoder
        layers = list(encoder.encoder.layer)
        inside = attn_mask.to(image_embeds.dtype)
        bias = ((inside - 1) * 1e4)[:, None, None]  # e^-10000 is 0 in any precision, and 10000 fits half
        x = encoder.embeddings(input_ids)
        for layer in layers[: self.config.layer]:
            x = layer(x, image_embeds, bias)
        tapes = []
        for layer in layers[self.config.layer :]:
            # Only the first token's result of the last layer is read.
            x, tape = layer.taped(x[:, :1] if layer is layers[-1] else x, x, image_embeds, bias)
            tapes.append(tape)
        gradient = self._seed().expand_as(x)
        for layer, tape in reversed(list(zip(layers[self.config.layer + 1 :], tapes[1:], strict=True))):
            gradient = layer.gradient(gradient, tape)
        target, own = layers[self.config.layer], tapes[0]
        slope = target.head_gradient(gradient, own, self.config.head)
        cam = self.fp32_map(own.image.weights[:, self.config.head], slope, inside)
        return cam, self.itm_head(x[:, 0])

    def _seed(self) -> Tensor:
        """The logit's gradient at the last layer's first token, (1, 1, width)."""
        weight = self.itm_head.weight
        row = weight[MATCH] if self.config.seed == "logit" else weight[MATCH] - weight[1 - MATCH]
        return row[None, None] * SEED_SCALE


class HeadMap(nn.Module):
    """Weights and their gradient (B, T, 1+L), mask (B, T) → the map (B, T, L)."""

    def forward(self, weights: Tensor, gradient: Tensor, inside: Tensor) -> Tensor:
        return weights[..., 1:] * gradient[..., 1:].relu() * (inside / SEED_SCALE)[..., None]


class Embeddings(nn.Module):
    """Tokens (B, T) → (B, T, width): word and position, normalised."""

    def __init__(self, config: ItmConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.words, config.width)
        self.position_embeddings = nn.Embedding(config.positions, config.width)
        self.LayerNorm = nn.LayerNorm(config.width, eps=EPSILON)

    def forward(self, tokens: Tensor) -> Tensor:
        positions = self.position_embeddings.weight[: tokens.shape[1]]
        return self.LayerNorm(self.word_embeddings(tokens) + positions)


@dataclass(frozen=True)
class LayerTape:
    """What a layer's gradient needs."""

    text: AttentionTape
    image: AttentionTape
    feed: FeedForwardTape


class Layer(nn.Module):
    """Attention to the text, attention to the image, feed-forward; each added to what it read and then normalised.

    `taped` and `gradient` take rows apart from all: a layer may be asked for some rows of its result only, the first
    ones, while all rows are attended to.
    """

    def __init__(self, config: ItmConfig) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.heads, config.width)
        self.crossattention = Attention(config.width, config.heads, config.image_width)
        self.intermediate = nn.Module()
        self.intermediate.dense = nn.Linear(config.width, config.hidden)
        self.output = AddAndNorm(config.hidden, config.width)
        self.fp32_norm, self.fp32_gelu = NormGradient(), GeluGradient()

    def forward(self, x: Tensor, image: Tensor, bias: Tensor) -> Tensor:
        x = self.attention(x, x, bias)
        x = self.crossattention(x, image)
        intermediate: Any = self.intermediate
        return self.output(F.gelu(intermediate.dense(x)), x)

    def taped(self, rows: Tensor, x: Tensor, image: Tensor, bias: Tensor) -> tuple[Tensor, LayerTape]:
        """The result for `rows` (B, R, C) of all the text's x (B, T, C), and the tape."""
        rows, text = self.attention.taped(rows, x, bias)
        rows, seen = self.crossattention.taped(rows, image)
        intermediate: Any = self.intermediate
        hidden = intermediate.dense(rows)
        rows, norm = self.output.taped(F.gelu(hidden), rows)
        return rows, LayerTape(text, seen, FeedForwardTape(hidden, norm))

    def gradient(self, gradient: Tensor, tape: LayerTape) -> Tensor:
        """The gradient (B, R, C) after the layer, brought before it: (B, T, C)."""
        rows, others = self.attention.gradient(self._before_image(self._before_feed(gradient, tape), tape), tape.text)
        if rows.shape[1] == 1:  # the last layer's only row; the text has more
            return torch.cat((others[:, :1] + rows, others[:, 1:]), dim=1)
        return rows + others

    def head_gradient(self, gradient: Tensor, tape: LayerTape, head: int) -> Tensor:
        """The gradient (B, T, C) after the layer, brought to the weights (B, T, M) of one image head."""
        return self.crossattention.head_gradient(self._before_feed(gradient, tape), tape.image, head)

    def _before_feed(self, gradient: Tensor, tape: LayerTape) -> Tensor:
        intermediate: Any = self.intermediate
        residual = self.fp32_norm(gradient, tape.feed.norm)
        inner = self.fp32_gelu(residual @ self.output.dense.weight, tape.feed.hidden)
        return residual + inner @ intermediate.dense.weight

    def _before_image(self, gradient: Tensor, tape: LayerTape) -> Tensor:
        return self.crossattention.query_gradient(gradient, tape.image)[0]


class Attention(nn.Module):
    """Rows (B, R, C) attend to a source (B or 1, M, S), are projected, added to the rows and normalised."""

    def __init__(self, width: int, heads: int, source: int) -> None:
        super().__init__()
        self.self = Projections(width, heads, source)
        self.output = AddAndNorm(width, width)
        self.backward_scores = AttentionGradient(heads)

    def forward(self, rows: Tensor, source: Tensor, bias: Tensor | None = None) -> Tensor:
        q, k, v = self.self(rows, source)
        return self.output(merge_heads(attend(q, k, v, bias)), rows)

    def taped(self, rows: Tensor, source: Tensor, bias: Tensor | None = None) -> tuple[Tensor, AttentionTape]:
        """The same, and the tape."""
        q, k, v = self.self(rows, source)
        scores = q @ k.transpose(-2, -1)
        weights = (scores if bias is None else scores + bias).softmax(dim=-1)
        rows, norm = self.output.taped(merge_heads(weights @ v), rows)
        return rows, AttentionTape(q, k, v, weights, norm)

    def gradient(self, gradient: Tensor, tape: AttentionTape) -> tuple[Tensor, Tensor]:
        """The gradient after the norm, brought to the rows (B, R, C), and to the source they are part of (B, M, C)."""
        rows, collected, scores = self.query_gradient(gradient, tape)
        to_keys = merge_heads(scores.transpose(-2, -1) @ tape.q) @ self.self.key.weight
        to_values = merge_heads(tape.weights.transpose(-2, -1) @ collected) @ self.self.value.weight
        return rows, to_keys + to_values

    def query_gradient(self, gradient: Tensor, tape: AttentionTape) -> tuple[Tensor, Tensor, Tensor]:
        """The gradient brought to the rows; and that of what the heads collected, and of the scores."""
        found = self.backward_scores(gradient, tape, self.output.dense.weight)
        rows = found.residual + merge_heads(found.scores @ tape.k) @ self.self.scaled_query()
        return rows, found.collected, found.scores

    def head_gradient(self, gradient: Tensor, tape: AttentionTape, head: int) -> Tensor:
        """The gradient after the norm, brought to the weights (B, R, M) of one head."""
        residual = self.backward_scores.fp32_norm(gradient, tape.norm)
        size = tape.v.shape[-1]
        collected = residual @ self.output.dense.weight[:, head * size : (head + 1) * size]
        return collected @ tape.v[:, head].transpose(-2, -1)


class Projections(Fixed):
    """q of the rows, scaled by 1/√d, and k and v of the source, as heads (B, h, N, d)."""

    def __init__(self, width: int, heads: int, source: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(source, width)
        self.value = nn.Linear(source, width)
        self.q = Project()

    def forward(self, rows: Tensor, source: Tensor) -> Iterable[Tensor]:
        weight = self.derive("q_weight", lambda: self._scaled(self.query.weight).t())
        q = self.q(rows, weight, self.derive("q_bias", lambda: self._scaled(self.query.bias)))
        return (split_heads(y, self.heads) for y in (q, self.key(source), self.value(source)))

    def scaled_query(self) -> Tensor:
        """The weight (out, in) of q, its scale in it."""
        return self.derive("q_backward", lambda: self._scaled(self.query.weight))

    def _scaled(self, x: Tensor) -> Tensor:
        return x * (self.query.out_features // self.heads) ** -0.5


class AddAndNorm(nn.Module):
    """A projection, added to the block's input and normalised."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, width)
        self.LayerNorm = nn.LayerNorm(width, eps=EPSILON)
        self.fp32_taped = TapedNorm()

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(y) + x)

    def taped(self, y: Tensor, x: Tensor) -> tuple[Tensor, Any]:
        """The same, and the norm's tape."""
        return self.fp32_taped(self.dense(y) + x, self.LayerNorm)
