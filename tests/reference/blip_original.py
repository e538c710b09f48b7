"""PnP-OVSS's inference on BLIP as its authors formulate it, on the weights' released names: the yardstick for ours.

A batch of images and padded captions goes forward with every parameter asking for its gradient; torch's autograd goes
back through all of it; the map is one cross-attention head's weights times what is positive of their gradient. Dropped
patches are zeros in the image. Plain torch; slow on purpose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.reference.part import Part

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Sizes:
    """What the names and shapes of the weights do not tell."""

    vit_heads: int = 16
    text_heads: int = 12
    layer: int = 7
    head: int = 9
    patch: int = 16


@dataclass
class Seen:
    """What a forward pass leaves: the hidden states, the match logits, and the weights [B, h, T, M] of each layer."""

    hidden: Tensor
    logits: Tensor
    weights: list[Tensor] = field(default_factory=list)


def image_tokens(state: State, sizes: Sizes, image: Tensor) -> Tensor:
    """Image [B, 3, H, W], normalised → [B, 1+L, C]."""
    vit = Part(state, "visual_encoder.")
    patches = vit.conv("patch_embed.proj", image, stride=sizes.patch).flatten(2).transpose(1, 2)
    x = torch.cat((vit["cls_token"].expand(len(image), -1, -1), patches), dim=1) + vit["pos_embed"]
    for i in range(depth(state, "visual_encoder.blocks.")):
        block = vit.at(f"blocks.{i}")
        q, k, v = block.linear("attn.qkv", block.norm("norm1", x, 1e-6)).chunk(3, dim=-1)
        x = x + block.linear("attn.proj", attention(q, k, v, sizes.vit_heads)[0])
        x = x + block.linear("mlp.fc2", F.gelu(block.linear("mlp.fc1", block.norm("norm2", x, 1e-6))))
    return vit.norm("norm", x, 1e-6)


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Projected [B, N, C] → what is collected [B, N, C], and the weights [B, h, N, M]."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    weights = (scores if mask is None else scores + mask).softmax(dim=-1)
    return (weights @ v).transpose(1, 2).flatten(2), weights


def match(state: State, sizes: Sizes, image: Tensor, ids: Tensor, mask: Tensor) -> Seen:
    """Image tokens [B, M, Di], token ids and mask [B, T] → the text's hidden states, logits and image weights."""
    text = Part(state, "text_encoder.")
    words, places = text["embeddings.word_embeddings.weight"], text["embeddings.position_embeddings.weight"]
    x = text.norm("embeddings.LayerNorm", words[ids] + places[: ids.shape[1]], 1e-12)
    bias = (1 - mask.to(x.dtype))[:, None, None] * -1e4
    seen = Seen(x, x)
    for i in range(depth(state, "text_encoder.encoder.layer.")):
        layer = text.at(f"encoder.layer.{i}")
        x, _ = attend(layer.at("attention"), x, x, sizes.text_heads, bias)
        x, weights = attend(layer.at("crossattention"), x, image, sizes.text_heads)
        seen.weights.append(weights)
        y = layer.linear("output.dense", F.gelu(layer.linear("intermediate.dense", x)))
        x = layer.norm("output.LayerNorm", y + x, 1e-12)
    seen.hidden, seen.logits = x, Part(state).linear("itm_head", x[:, 0])
    return seen


def attend(part: Part, x: Tensor, source: Tensor, heads: int, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One of BERT's attentions, its projection, residual sum and norm."""
    q, k, v = part.linear("self.query", x), part.linear("self.key", source), part.linear("self.value", source)
    collected, weights = attention(q, k, v, heads, mask)
    return part.norm("output.LayerNorm", part.linear("output.dense", collected) + x, 1e-12), weights


def gradcam(seen: Seen, sizes: Sizes, mask: Tensor, seed: str = "logit") -> Tensor:
    """The map [B, T, L], by autograd; every leaf that asks for a gradient gets one."""
    weights = seen.weights[sizes.layer]
    weights.retain_grad()
    score = seen.logits[:, 1] if seed == "logit" else seen.logits[:, 1] - seen.logits[:, 0]
    score.sum().backward()
    assert weights.grad is not None
    cam = weights * weights.grad.clamp(min=0) * mask.to(weights.dtype)[:, None, :, None]
    return cam[:, sizes.head, :, 1:].detach()


@dataclass(frozen=True)
class Rounds:
    """Of each round: the map [T, L] with what was dropped before set to zero, the dropped patches, the logits [2]."""

    maps: list[Tensor]
    dropped: list[Tensor]
    logits: list[Tensor]

    @property
    def aggregate(self) -> Tensor:
        """All rounds, the first one twice."""
        return torch.stack([self.maps[0], *self.maps]).sum(0)


def salience_dropout(
    state: State, sizes: Sizes, image: Tensor, ids: Tensor, rounds: int = 4, patches: int = 10
) -> Rounds:
    """One image [1, 3, H, W] and caption [1, T]; the patches of each round are the most salient ones, ascending."""
    side = image.shape[-1] // sizes.patch
    keep, mask, out = torch.ones(side * side, dtype=image.dtype), torch.ones_like(ids), Rounds([], [], [])
    for _ in range(rounds):
        for tensor in state.values():
            tensor.grad = None
        shown = image * keep.reshape(1, 1, side, side).repeat_interleave(16, 2).repeat_interleave(16, 3)
        seen = match(state, sizes, image_tokens(state, sizes, shown), ids, mask)
        cam = gradcam(seen, sizes, mask)[0] * keep
        dropped = cam[4:-1].sum(0).argsort()[-patches:]
        out.maps.append(cam)
        out.dropped.append(dropped)
        out.logits.append(seen.logits[0].detach())
        keep[dropped] = 0
    return out


def depth(state: State, prefix: str) -> int:
    """How many blocks there are under a prefix."""
    return len({name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)})
