"""EBSeg's pixel decoder and mask decoder as their authors run them (a Mask2Former with three heads more)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.reference.part import Part, resize
from tests.reference.sizes import Sizes


def pixel_decoder(decoder: Part, sizes: Sizes, maps: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
    """res2..res5 → mask features [N, width, H/4, W/4] and three maps of strides 32, 16 and 8."""
    levels = [maps[name] for name in ("res5", "res4", "res3")]
    projected = [projection(decoder.at(f"input_proj.{i}"), level) for i, level in enumerate(levels)]
    shapes = [(level.shape[2], level.shape[3]) for level in projected]
    embed = decoder["transformer.level_embed"]
    positions = [sine(sizes.width, shape, embed.device) + embed[i] for i, shape in enumerate(shapes)]
    x = torch.cat([level.flatten(2).transpose(1, 2) for level in projected], 1)
    for i in range(sizes.encoder_layers):
        x = encoder_layer(decoder.at(f"transformer.encoder.layers.{i}"), sizes, (x, torch.cat(positions)), shapes)
    pieces = x.split([h * w for h, w in shapes], dim=1)
    out = [piece.transpose(1, 2).reshape(len(x), -1, *shape) for piece, shape in zip(pieces, shapes, strict=True)]
    lateral = decoder.group_norm("adapter_1.norm", F.conv2d(maps["res2"], decoder["adapter_1.weight"]))
    joined = lateral + resize(out[-1], (lateral.shape[2], lateral.shape[3]))
    fine = F.relu(decoder.group_norm("layer_1.norm", F.conv2d(joined, decoder["layer_1.weight"], padding=1)))
    return decoder.conv("mask_features", fine), out


def projection(part: Part, x: Tensor) -> Tensor:
    return part.group_norm("1", part.conv("0", x))


def sine(width: int, shape: tuple[int, int], device: torch.device) -> Tensor:
    """Sine position embedding [h * w, width]: rows in the first half of the channels, columns in the second."""
    half = width // 2
    periods = 10000 ** (torch.arange(half, dtype=torch.float32, device=device) // 2 * 2 / half)

    def axis(size: int) -> Tensor:
        places = torch.arange(1, size + 1, dtype=torch.float32, device=device)
        angles = (places / (places[-1:] + 1e-6) * (2 * math.pi))[:, None] / periods
        return torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=2).flatten(1)

    h, w = shape
    rows, columns = axis(h)[:, None].expand(h, w, half), axis(w)[None].expand(h, w, half)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)


def encoder_layer(layer: Part, sizes: Sizes, tokens: tuple[Tensor, Tensor], shapes: list[tuple[int, int]]) -> Tensor:
    """`tokens` are the features [N, S, width] and their positions [S, width]."""
    x, position = tokens
    x = layer.norm("norm1", x + deformable(layer.at("self_attn"), sizes, (x + position, x), shapes))
    return layer.norm("norm2", x + layer.linear("linear2", F.relu(layer.linear("linear1", x))))


def deformable(attend: Part, sizes: Sizes, tokens: tuple[Tensor, Tensor], shapes: list[tuple[int, int]]) -> Tensor:
    """Each token reads `points` places of every level, near its own place, with `grid_sample`."""
    query, source = tokens
    count, length, width = query.shape
    heads, levels, points = sizes.heads, len(shapes), sizes.points
    value = attend.linear("value_proj", source).view(count, length, heads, width // heads)
    offsets = attend.linear("sampling_offsets", query).view(count, length, heads, levels, points, 2)
    weights = attend.linear("attention_weights", query).view(count, length, heads, levels * points).softmax(-1)
    extents = torch.tensor([[w, h] for h, w in shapes], device=query.device)
    places = centres(shapes, query.device)[None, :, None, None, None] + offsets / extents[None, None, None, :, None]
    grids, sampled = 2 * places - 1, []
    for i, (piece, shape) in enumerate(zip(value.split([h * w for h, w in shapes], dim=1), shapes, strict=True)):
        plane = piece.flatten(2).transpose(1, 2).reshape(count * heads, width // heads, *shape)
        grid = grids[:, :, :, i].transpose(1, 2).flatten(0, 1)
        sampled.append(F.grid_sample(plane, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
    weights = weights.transpose(1, 2).reshape(count * heads, 1, length, levels * points)
    mixed = (torch.stack(sampled, dim=-2).flatten(-2) * weights).sum(-1).view(count, width, length)
    return attend.linear("output_proj", mixed.transpose(1, 2).contiguous())


def centres(shapes: list[tuple[int, int]], device: torch.device) -> Tensor:
    """Pixel centres of all levels as (x, y) in 0..1, [S, 2]."""

    def level(h: int, w: int) -> Tensor:
        y, x = ((torch.arange(size, dtype=torch.float32, device=device) + 0.5) / size for size in (h, w))
        return torch.stack([x.repeat(h), y.repeat_interleave(w)], dim=-1)

    return torch.cat([level(*shape) for shape in shapes])


@dataclass
class Predictions:
    """Ten of each: the first from the bare queries, the others after each layer."""

    masks: list[Tensor] = field(default_factory=list)  # logits [N, Q, H/4, W/4]
    embeddings: list[Tensor] = field(default_factory=list)  # A, [N, Q, D]
    biases: list[Tensor] = field(default_factory=list)  # [N, heads, Q, H/4, W/4]


@dataclass(frozen=True)
class Pixels:
    """What the queries are held against."""

    features: Tensor  # [N, width, H/4, W/4]
    by_head: Tensor  # [N, heads, width, H/4, W/4], for the attention bias


def mask_decoder(decoder: Part, sizes: Sizes, features: Tensor, levels: list[Tensor]) -> Predictions:
    """Queries that look at one level after the other, each inside the mask that it predicted last."""
    shapes = [(level.shape[2], level.shape[3]) for level in levels]
    positions = [sine(sizes.width, shape, features.device)[:, None] for shape in shapes]
    embed = decoder["level_embed.weight"]
    memory = [(level.flatten(2) + embed[i][:, None]).permute(2, 0, 1) for i, level in enumerate(levels)]
    count, width, h, w = features.shape
    by_pixel = decoder.at("attn_proj").mlp(features.permute(0, 2, 3, 1).contiguous())
    by_head = by_pixel.permute(0, 3, 1, 2).contiguous().view(count, sizes.clip_heads, width, h, w)
    del by_pixel
    pixels = Pixels(features, by_head)
    place = decoder["query_embed.weight"][:, None].repeat(1, count, 1)
    x = decoder["query_feat.weight"][:, None].repeat(1, count, 1)
    found = Predictions()
    blocked = predict(decoder, pixels, x, found, shapes[0])
    for i in range(sizes.decoder_layers):
        level = i % len(levels)
        blocked[blocked.all(-1)] = False  # a query whose mask is empty looks everywhere
        source = memory[level] + positions[level], memory[level]
        x = decoder_layer(decoder, i, (x, place), source, repeat_heads(blocked, sizes.heads))
        blocked = predict(decoder, pixels, x, found, shapes[(i + 1) % len(levels)])
    return found


def repeat_heads(blocked: Tensor, heads: int) -> Tensor:
    """[N, Q, S] → [N * heads, Q, S]."""
    return blocked[:, None].repeat(1, heads, 1, 1).flatten(0, 1)


def decoder_layer(
    decoder: Part, index: int, queries: tuple[Tensor, Tensor], source: tuple[Tensor, Tensor], blocked: Tensor
) -> Tensor:
    """`queries` and their positions [Q, N, width]; `source` is keys and values [S, N, width]."""
    x, place = queries
    heads = blocked.shape[0] // x.shape[1]
    cross = decoder.at(f"transformer_cross_attention_layers.{index}")
    seen = cross.at("multihead_attn").attention((x + place, *source), heads, blocked)
    x = cross.norm("norm", x + seen)
    own = decoder.at(f"transformer_self_attention_layers.{index}")
    x = own.norm("norm", x + own.at("self_attn").attention((x + place, x + place, x), heads))
    feed = decoder.at(f"transformer_ffn_layers.{index}")
    return feed.norm("norm", x + feed.linear("linear2", F.relu(feed.linear("linear1", x))))


def predict(decoder: Part, pixels: Pixels, x: Tensor, found: Predictions, shape: tuple[int, int]) -> Tensor:
    """Add one prediction to `found`; returns where the next level, of this shape, is blocked: bool [N, Q, h * w]."""
    query = decoder.norm("decoder_norm", x).transpose(0, 1)
    embed = decoder.at("mask_embed").mlp(query)
    masks = torch.einsum("bqc,bchw->bqhw", embed, pixels.features)
    bias = torch.einsum("bqc,bnchw->bnqhw", embed, pixels.by_head)
    found.masks.append(masks)
    found.biases.append(decoder.linear("bias_scaling", bias[..., None]).squeeze(-1))
    inside = (masks > 0).to(masks.dtype)
    pooled = torch.einsum("bchw,bqhw->bqc", pixels.features, inside / (inside.sum((-1, -2), keepdim=True) + 1e-8))
    pooled = decoder.linear("pool_proj.1", decoder.norm("pool_proj.0", pooled))
    direction = F.normalize(decoder.at("mask_embed1").mlp(pooled + query), dim=-1)
    found.embeddings.append(decoder["logit_scale"].clamp(max=10) * direction)
    return resize(masks, shape).sigmoid().flatten(2) < 0.5
