"""SAM's mask decoder over a batch of prompts on one image (Kirillov et al. 2023; facebookresearch/segment-anything).

Parameters carry the published names. The image's tokens differ from prompt to prompt only after the first layer, and
the prompts have few tokens, so the same function costs less than half the products of the published form:

1. The first layer's keys, values and queries of the image are computed once, not per prompt.
2. Later, where T prompt tokens read L image tokens, the image is not projected: q (k W)ᵀ = (q Wᵀ) kᵀ, and the values'
   weight is applied to the T results. A key's bias adds the same to all scores of a row, which a softmax ignores.
3. Where the image reads the prompt, the output projection is applied to the T values, not to the L results, and so is
   its bias, a share for each head: a head's softmax sums up to one.
4. The upscaling's strided transposed convolutions are products whose four results are the cells of a 2x2 block. Blocks
   are put in place once, at the end, when each is one number per mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .fixed import Fixed, Project
from .layers import Perceptron, attend, merge_heads, split_heads


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of the mask decoder; `masks` counts the single mask and the several ones."""

    width: int = 256
    heads: int = 8
    layers: int = 2
    hidden: int = 2048
    masks: int = 4
    iou_hidden: int = 256


class MaskDecoder(Fixed):
    """Image tokens (1, L, C), their positions (L, C), prompt tokens (N, P, C) → mask logits and predicted IoU.

    The logits are (N, masks, 4h, 4w) for an image of h x w = L cells, the IoU (N, masks); mask 0 is the single one.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width, self.masks = config.width, config.masks
        self.transformer = Transformer(config)
        self.iou_token = nn.Embedding(1, width)
        self.mask_tokens = nn.Embedding(config.masks, width)
        self.output_upscaling = Upscaling(width)
        self.output_hypernetworks_mlps = nn.ModuleList(
            Perceptron(width, width, width // 8, 3) for _ in range(self.masks)
        )
        self.iou_prediction_head = Perceptron(width, config.iou_hidden, config.masks, 3)
        self.fp32_heads = Heads()

    def forward(
        self, image: Tensor, positions: Tensor, prompts: Tensor, grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        own = self.derive("tokens", lambda: torch.cat((self.iou_token.weight, self.mask_tokens.weight))[None])
        tokens = torch.cat((own.expand(prompts.shape[0], -1, -1), prompts), dim=1)
        tokens, image = self.transformer(image, positions, tokens)
        iou, kernels = self.fp32_heads(tokens, self.iou_prediction_head, self.output_hypernetworks_mlps)
        return self.output_upscaling(image, kernels, grid), iou


class Heads(nn.Module):
    """Output tokens (N, 1 + masks + P, C) → predicted IoU (N, masks) and mask kernels (N, masks, C/8), in fp32.

    A mask is kept or dropped by thresholds on these, and they cost next to nothing.
    """

    def forward(self, tokens: Tensor, iou: nn.Module, kernels: nn.ModuleList) -> tuple[Tensor, Tensor]:
        return iou(tokens[:, 0]), torch.stack([net(tokens[:, 1 + i]) for i, net in enumerate(kernels)], dim=1)


class Transformer(nn.Module):
    """Prompt tokens and image tokens attend to each other in turn."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayLayer(config, first=i == 0) for i in range(config.layers))
        self.final_attn_token_to_image = CrossAttention(config.width, config.heads)
        self.norm_final_attn = nn.LayerNorm(config.width)

    def forward(self, image: Tensor, positions: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
        tokens = prompts
        for layer in self.layers:
            tokens, image = layer(tokens, image, positions, prompts)
        read = self.final_attn_token_to_image.read(tokens + prompts, image, positions)
        return self.norm_final_attn(tokens + read), image


class TwoWayLayer(nn.Module):
    """Self-attention of the tokens, tokens read the image, a perceptron, the image reads the tokens; norms behind."""

    def __init__(self, config: DecoderConfig, first: bool) -> None:
        super().__init__()
        width, self.first = config.width, first
        self.self_attn = SelfAttention(width, config.heads)
        self.cross_attn_token_to_image = CrossAttention(width, config.heads)
        self.mlp = DecoderMlp(width, config.hidden)
        self.cross_attn_image_to_token = CrossAttention(width, config.heads)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norm3, self.norm4 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, tokens: Tensor, image: Tensor, positions: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
        if self.first:  # the published code has neither a residual nor positions here
            tokens = self.norm1(self.self_attn(tokens, tokens))
        else:
            tokens = self.norm1(tokens + self.self_attn(tokens + prompts, tokens))
        cross = self.cross_attn_token_to_image
        read = cross.read_shared if self.first else cross.read
        tokens = self.norm2(tokens + read(tokens + prompts, image, positions))
        tokens = self.norm3(tokens + self.mlp(tokens))
        back = self.cross_attn_image_to_token
        write = back.write_shared if self.first else back.write
        written = image + write(image, positions, tokens + prompts, tokens)
        # The axis keeps onnxruntime from one kernel for sum and norm, which on a CPU takes longer than both.
        return tokens, self.norm4(written[:, None]).squeeze(1)


class DecoderMlp(nn.Module):
    """Linear, ReLU, Linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(width, hidden)
        self.lin2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(self.lin1(x).relu())


class SelfAttention(Fixed):
    """Attention among the tokens, at full width; q and k (N, T, C) and v (N, T, C)."""

    def __init__(self, width: int, heads: int, inner: int | None = None) -> None:
        super().__init__()
        self.heads, self.inner = heads, inner or width
        self.q_proj, self.k_proj = nn.Linear(width, self.inner), nn.Linear(width, self.inner)
        self.v_proj, self.out_proj = nn.Linear(width, self.inner), nn.Linear(self.inner, width)
        self.q = Project()

    def queries(self, x: Tensor) -> Tensor:
        """Heads (N, h, T, d) of q, divided by √d."""
        scale = (self.inner // self.heads) ** -0.5
        weight = self.derive("q_weight", lambda: self.q_proj.weight.t() * scale)
        bias = self.derive("q_bias", lambda: self.q_proj.bias * scale)
        return split_heads(self.q(x, weight, bias), self.heads)

    def forward(self, qk: Tensor, v: Tensor) -> Tensor:
        k = split_heads(self.k_proj(qk), self.heads)
        return self.out_proj(merge_heads(attend(self.queries(qk), k, split_heads(self.v_proj(v), self.heads))))


class CrossAttention(SelfAttention):
    """Attention between tokens (N, T, C) and image (N, L, C), or (1, L, C) where it is one for all; half as wide."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads, width // 2)

    def read_shared(self, q: Tensor, image: Tensor, positions: Tensor) -> Tensor:
        """Tokens read one image: (N, T, C)."""
        batch, length, _ = q.shape
        rows = self.queries(q).transpose(0, 1).reshape(1, self.heads, batch * length, -1)
        k = split_heads(self.k_proj(image + positions), self.heads)
        y = attend(rows, k, split_heads(self.v_proj(image), self.heads))
        y = y.reshape(self.heads, batch, length, -1).permute(1, 2, 0, 3).reshape(batch, length, self.inner)
        return self.out_proj(y)

    def read(self, q: Tensor, image: Tensor, positions: Tensor) -> Tensor:
        """Tokens read an image of their own (rule 2 of the module's text): (N, T, C)."""
        batch, length, width = q.shape
        keys = self.derive("k_heads", lambda: self._heads(self.k_proj.weight))
        rows = (self.queries(q) @ keys).reshape(batch, self.heads * length, width)
        shares = (rows @ (image + positions).transpose(1, 2)).softmax(dim=-1)
        seen = (shares @ image).reshape(batch, self.heads, length, width)
        values = self.derive("v_heads", lambda: self._heads(self.v_proj.weight).transpose(1, 2))
        bias = self.derive("v_bias", lambda: self.v_proj.bias.reshape(self.heads, 1, -1))
        return self.out_proj(merge_heads(seen @ values + bias))

    def write_shared(self, image: Tensor, positions: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """One image reads tokens: (N, L, C)."""
        keys = split_heads(self.k_proj(k), self.heads)
        shares = (self.queries(image + positions) @ keys.transpose(-2, -1)).softmax(dim=-1)  # (N, h, L, T)
        batch, _, cells, length = shares.shape
        return self._spread(shares.transpose(1, 2).reshape(batch, cells, self.heads * length), v)

    def write(self, image: Tensor, positions: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """An image reads its own tokens (rules 2 and 3): (N, L, C)."""
        batch, length, width = k.shape
        scale = (self.inner // self.heads) ** -0.5
        keys = split_heads(self.k_proj(k), self.heads)
        weight = self.derive("q_heads", lambda: self._heads(self.q_proj.weight) * scale)
        bias = self.derive("q_column", lambda: self.q_proj.bias.reshape(self.heads, -1, 1) * scale)
        columns = (keys @ weight).reshape(batch, self.heads * length, width).transpose(1, 2)
        offset = (keys @ bias).reshape(batch, 1, self.heads * length)
        scores = ((image + positions) @ columns + offset).reshape(batch, -1, self.heads, length)
        return self._spread(scores.softmax(dim=-1).reshape(batch, -1, self.heads * length), v)

    def _spread(self, shares: Tensor, v: Tensor) -> Tensor:
        """Shares (N, L, h*T) of the tokens' values, through the output projection (rule 3)."""
        batch, length, width = v.shape
        weight = self.derive("out_heads", lambda: self._heads(self.out_proj.weight.t()))
        bias = self.derive("out_share", lambda: self.out_proj.bias / self.heads)
        values = split_heads(self.v_proj(v), self.heads) @ weight + bias  # (N, h, T, C)
        return shares @ values.reshape(batch, self.heads * length, width)

    def _heads(self, weight: Tensor) -> Tensor:
        """(inner, C) → (h, d, C)."""
        return weight.reshape(self.heads, -1, weight.shape[-1])


class Upscaling(Fixed):
    """Image tokens (N, L, C) and kernels (N, M, C/8) → logits (N, M, 4h, 4w); rule 4 of the module's text.

    The published layers are 0: transposed convolution, 1: channel norm, 3: transposed convolution; GELU behind both.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.add_module("0", nn.ConvTranspose2d(width, width // 4, 2, 2))
        self.add_module("1", nn.LayerNorm(width // 4, eps=1e-6))
        self.add_module("3", nn.ConvTranspose2d(width // 4, width // 8, 2, 2))
        self.first, self.second, self.product = Project(), Project(), Project()

    def forward(self, image: Tensor, kernels: Tensor, grid: tuple[int, int]) -> Tensor:
        batch, cells, width = image.shape
        x = self._expanded(image, "0", self.first).reshape(batch, cells * 4, width // 4)
        x = F.gelu(self.get_submodule("1")(x))
        x = F.gelu(self._expanded(x, "3", self.second).reshape(batch, cells * 16, width // 8))
        masks = self.product(x, kernels.transpose(1, 2))
        masks = masks.reshape(batch, *grid, 2, 2, 2, 2, kernels.shape[1]).permute(0, 7, 1, 3, 5, 2, 4, 6)
        return masks.reshape(batch, kernels.shape[1], 4 * grid[0], 4 * grid[1])

    def _expanded(self, x: Tensor, name: str, project: Project) -> Tensor:
        """Each cell's 2x2 block, row-major: (..., 4 * outputs)."""
        layer = self.get_submodule(name)
        weight = self.derive(f"weight_{name}", lambda: layer.weight.permute(0, 2, 3, 1).flatten(1))  # type: ignore[operator]  # a tensor here
        bias = self.derive(f"bias_{name}", lambda: layer.bias.repeat(4))  # type: ignore[operator]  # a tensor here
        return project(x, weight, bias)
