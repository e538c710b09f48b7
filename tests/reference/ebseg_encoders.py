"""EBSeg's three transformers as their authors run them: SAM's image encoder, CLIP's two image streams, CLIP's text.

Written from the published code's behaviour (github.com/slonetime/EBSeg, MIT) without its shortcuts or ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.reference.part import Part, quick_gelu
from tests.reference.sizes import Sizes


def sam_maps(sam: Part, sizes: Sizes, image: Tensor) -> dict[str, Tensor]:
    """image [N, 3, H, W] → res2..res5 [N, C, H/s, W/s] for the strides s = 4, 8, 16, 32."""
    x = sam.conv("patch_embed.proj", image, sizes.sam_patch).permute(0, 2, 3, 1)
    table = sam["pos_embed"].permute(0, 3, 1, 2).contiguous()
    position = F.interpolate(table, size=x.shape[1:3], mode="bicubic", align_corners=False)
    x = x + position.permute(0, 2, 3, 1).contiguous()
    taps = []
    for i in range(sizes.sam_depth):
        x = sam_block(sam.at(f"blocks.{i}"), x, sizes.sam_heads, None if i in sizes.taps else sizes.window)
        if i in sizes.taps:
            taps.append(x)
    scales = {"res2": 4.0, "res3": 2.0, "res4": 1.0, "res5": 0.5}
    return {
        name: F.interpolate(tap.permute(0, 3, 1, 2), scale_factor=scale, mode="bilinear")
        for (name, scale), tap in zip(scales.items(), taps, strict=True)
    }


def sam_block(block: Part, x: Tensor, heads: int, window: int | None) -> Tensor:
    """x [N, h, w, C]; attention inside windows, or over the whole map where `window` is None."""
    normed = block.norm("norm1", x, 1e-6)
    attend = block.at("attn")
    x = x + (sam_attention(attend, normed, heads) if window is None else in_windows(attend, normed, heads, window))
    return x + block.linear("mlp.lin2", F.gelu(block.linear("mlp.lin1", block.norm("norm2", x, 1e-6))))


def in_windows(attend: Part, x: Tensor, heads: int, side: int) -> Tensor:
    """Attention in each of the windows; zeros fill those that overhang, and are attended like any token."""
    count, h, w, width = x.shape
    x = F.pad(x, (0, 0, 0, -w % side, 0, -h % side))
    rows, columns = x.shape[1] // side, x.shape[2] // side
    x = x.view(count, rows, side, columns, side, width).permute(0, 1, 3, 2, 4, 5).contiguous()
    x = sam_attention(attend, x.view(-1, side, side, width), heads)
    x = x.view(count, rows, columns, side, side, width).permute(0, 1, 3, 2, 4, 5).contiguous()
    return x.view(count, rows * side, columns * side, width)[:, :h, :w].contiguous()


def sam_attention(attend: Part, x: Tensor, heads: int) -> Tensor:
    """Full attention over a map [N, h, w, C], with positions of rows and columns added to the scores."""
    count, h, w, width = x.shape
    qkv = attend.linear("qkv", x).reshape(count, h * w, 3, heads, -1).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.reshape(3, count * heads, h * w, -1).unbind(0)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    queries = q.reshape(count * heads, h, w, -1)
    by_row = torch.einsum("bhwc,hkc->bhwk", queries, relative(attend["rel_pos_h"], h))
    by_column = torch.einsum("bhwc,wkc->bhwk", queries, relative(attend["rel_pos_w"], w))
    scores = scores.view(-1, h, w, h, w) + by_row[..., :, None] + by_column[..., None, :]
    mixed = scores.view(-1, h * w, h * w).softmax(-1) @ v
    mixed = mixed.view(count, heads, h, w, -1).permute(0, 2, 3, 1, 4).reshape(count, h, w, width)
    return attend.linear("proj", mixed)


def relative(table: Tensor, size: int) -> Tensor:
    """Table of offsets → [size, size, C] for every (query, key), resized when it was made for another size."""
    offsets = 2 * size - 1
    if len(table) != offsets:
        table = F.interpolate(table.T[None], size=offsets, mode="linear")[0].T
    places = torch.arange(size, device=table.device)
    return table[places[:, None] - places[None, :] + size - 1]


@dataclass(frozen=True)
class ClipFeatures:
    """What the trunk hands on; tokens are [1 + gh * gw, N, C], the class token first."""

    maps: dict[int, Tensor]  # number of blocks → [N, C, gh, gw]
    tokens: Tensor
    surgery: Tensor


def clip_trunk(clip: Part, sizes: Sizes, image: Tensor) -> ClipFeatures:
    """image [N, 3, h, w] at CLIP's resolution."""
    x = F.conv2d(image, clip["conv1.weight"], stride=sizes.clip_patch)
    count, width, *grid = x.shape
    x = x.flatten(2).permute(0, 2, 1).contiguous()
    x = torch.cat([clip["class_embedding"].expand(count, 1, width), x], dim=1)
    x = clip.norm("ln_pre", x + clip_positions(clip["positional_embedding"], sizes.clip_grid, (grid[0], grid[1])))
    x = surgery = x.permute(1, 0, 2).contiguous()
    maps = {}
    for i in range(sizes.clip_trunk):
        block = clip.at(f"resblocks.{i}")
        if i < sizes.surgery_start:
            x = surgery = clip_block(block, x, sizes.clip_heads)
        else:
            x, surgery = surgery_block(block, (x, surgery), sizes.clip_heads)
        maps[i + 1] = x[1:].permute(1, 2, 0).contiguous().view(count, width, *grid)
    return ClipFeatures(maps, x, surgery)


def clip_positions(table: Tensor, side: int, grid: tuple[int, int]) -> Tensor:
    """[1 + side * side, C] → [1 + gh * gw, C]."""
    if grid == (side, side):
        return table
    patches = table[1:].T.reshape(1, -1, side, side)
    patches = F.interpolate(patches, size=grid, mode="bicubic", align_corners=False)
    return torch.cat([table[:1], patches.flatten(2)[0].T])


def clip_block(block: Part, x: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    y = block.norm("ln_1", x)
    x = x + block.at("attn").attention((y, y, y), heads, mask, need_weights=False)
    return x + clip_mlp(block, x)


def clip_mlp(block: Part, x: Tensor) -> Tensor:
    return block.linear("mlp.c_proj", quick_gelu(block.linear("mlp.c_fc", block.norm("ln_2", x))))


def surgery_block(
    block: Part, streams: tuple[Tensor, Tensor], heads: int, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The original stream as CLIP has it, and one that gathers value-value attention of the first without the MLP."""
    x, surgery = streams
    length, count, width = x.shape
    qkv = block.linear("attn.qkv", block.norm("ln_1", x).transpose(0, 1))
    q, k, v = qkv.reshape(count, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)

    def attend(left: Tensor, right: Tensor) -> Tensor:
        scores = (left @ right.transpose(-2, -1)) * left.shape[-1] ** -0.5
        if mask is not None:
            scores += mask
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(count, length, width)
        return block.linear("attn.proj", mixed).transpose(0, 1)

    x, surgery = x + attend(q, k), surgery + attend(v, v)
    return x + clip_mlp(block, x), surgery


def clip_tail(tail: Part, sizes: Sizes, features: ClipFeatures, bias: Tensor) -> tuple[Tensor, Tensor]:
    """bias [N, heads, Q, H/4, W/4] → unit mask embeddings [N, Q, D] and dense map [N, D, gh, gw]."""
    count, _, *grid = features.maps[sizes.clip_trunk].shape
    queries = sizes.queries
    mask = tail_mask(bias, (grid[0], grid[1]))
    x, surgery = (
        torch.cat([stream[:1].repeat(queries, 1, 1), stream]) for stream in (features.tokens, features.surgery)
    )
    for i in range(sizes.clip_tail):
        x, surgery = surgery_block(tail.at(f"resblocks.{i}"), (x, surgery), sizes.clip_heads, mask)
    masks = into_text_space(tail, x[:queries])
    dense = into_text_space(tail, surgery[queries:])[:, 1:]
    return masks, dense.permute(0, 2, 1).contiguous().view(count, -1, *grid)


def into_text_space(tail: Part, tokens: Tensor) -> Tensor:
    """[tokens, N, C] → unit vectors [N, tokens, D]."""
    normed = tail.norm("ln_post", tokens.permute(1, 0, 2).contiguous())
    return F.normalize(normed @ tail["proj"], dim=-1)


def tail_mask(bias: Tensor, grid: tuple[int, int]) -> Tensor:
    """What is added to the tail's scores [N, heads, T, T], T = Q mask tokens + class token + patches.

    A mask token sees itself and, weighted by its bias, the patches; nobody else sees a mask token.
    """
    count, heads, queries = bias.shape[:3]
    pooled = F.adaptive_max_pool2d(bias.reshape(count, heads * queries, *bias.shape[3:]), grid)
    patches = grid[0] * grid[1]
    base = bias.new_zeros(queries + 1 + patches, queries + 1 + patches)
    base[:, :queries] = -100
    base.fill_diagonal_(0)
    base[:queries, queries] = -100
    mask = base.expand(count, heads, -1, -1).clone()
    mask[:, :, :queries, -patches:] = pooled.view(count, heads, queries, patches)
    return mask


def classifier(text: Part, sizes: Sizes, tokens: Tensor) -> Tensor:
    """tokens int64 [templates, C, context] → unit vectors [C + 1, D]; the last is the learned background."""
    by_template = torch.stack([F.normalize(encode_text(text, sizes, batch), dim=-1) for batch in tokens])
    classes = F.normalize(by_template.mean(0), dim=-1)
    return F.normalize(torch.cat([classes, text["bg_embed"]]), dim=-1)


def encode_text(text: Part, sizes: Sizes, tokens: Tensor) -> Tensor:
    """tokens int64 [N, context] → [N, D]; the end token, which is the largest number, speaks for the sentence."""
    context = tokens.shape[1]
    causal = text["positional_embedding"].new_full((context, context), float("-inf")).triu(1)
    x = (text["token_embedding.weight"][tokens] + text["positional_embedding"]).permute(1, 0, 2)
    for i in range(sizes.text_depth):
        x = clip_block(text.at(f"transformer.resblocks.{i}"), x, sizes.text_heads, causal)
    x = text.norm("ln_final", x.permute(1, 0, 2))
    ends = x[torch.arange(len(x), device=x.device), tokens.argmax(-1)]
    return ends @ text["text_projection"]
