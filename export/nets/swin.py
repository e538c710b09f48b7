"""Swin blocks of CAT-Seg's aggregation, with queries and keys that also see the image ("guidance").

Tokens are put in the order of their windows by one gather in front of each block, instead of rolls and transposes, and
the guidance's share of q and k is computed once for all classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .fixed import Fixed
from .layers import attend


@dataclass(frozen=True)
class SwinConfig:
    """Sizes of the blocks.

    Attributes:
        width: of a token. `guidance`: of the guidance. `hidden`: of the MLPs.
        grid: side of the token grid. `window`: side of a window; it divides the grid.
        heads: of the attention.
    """

    width: int = 128
    guidance: int = 128
    hidden: int = 512
    grid: int = 24
    window: int = 12
    heads: int = 4


class SwinPair(Fixed):
    """Two Swin blocks, the second with its windows shifted by half: (n, L, C) → the same, raster order outside."""

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        self.config = config
        self.block_1 = SwinBlock(config)
        self.block_2 = SwinBlock(config, shifted=True)
        self.guidance_norm = nn.LayerNorm(config.guidance)

    def guide(self, appearance: Tensor) -> tuple[Tensor, ...]:
        """What the guidance (1, L, ·) adds to q and k of both blocks, in the order of their windows."""
        plain, shifted = self._orders()
        normed = self.guidance_norm(appearance)
        pairs = ((self.block_1, plain), (self.block_2, shifted))
        return tuple(part for block, order in pairs for part in block.attn.guide(normed[:, order]))

    def forward(self, x: Tensor, guide: tuple[Tensor, ...]) -> Tensor:
        plain, shifted = self._orders()
        between = self.derive("between", lambda: plain.argsort()[shifted])
        back = self.derive("back", lambda: shifted.argsort())
        x = self.block_1(x.index_select(1, plain), guide[:2])
        return self.block_2(x.index_select(1, between), guide[2:]).index_select(1, back)

    def _orders(self) -> tuple[Tensor, Tensor]:
        side, window = self.config.grid, self.config.window
        plain = self.derive("plain", lambda: window_order(side, window, 0))
        return plain, self.derive("shifted", lambda: window_order(side, window, window // 2))


def window_order(side: int, window: int, shift: int) -> Tensor:
    """(side²,) token numbers, window by window, of a grid rolled by -shift along both axes."""
    numbers = torch.arange(side * side).reshape(side, side).roll((-shift, -shift), dims=(0, 1))
    count = side // window
    return numbers.reshape(count, window, count, window).permute(0, 2, 1, 3).reshape(-1)


def shift_mask(side: int, window: int, shift: int) -> Tensor:
    """(windows, window², window²): -100 between tokens that only the roll brought into one window, else 0."""
    bands = torch.zeros(side, dtype=torch.long)
    bands[side - window : side - shift], bands[side - shift :] = 1, 2
    regions = (bands[:, None] * 3 + bands[None, :]).reshape(-1)
    tiles = regions[window_order(side, window, 0)].reshape(-1, window * window)
    return (tiles[:, None, :] != tiles[:, :, None]).float() * -100.0


class SwinBlock(nn.Module):
    """Pre-norm block over (n, L, C) in window order."""

    def __init__(self, config: SwinConfig, shifted: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width)
        self.attn = WindowAttention(config)
        self.norm2 = nn.LayerNorm(config.width)
        self.mlp = SwinMlp(config)
        mask = shift_mask(config.grid, config.window, config.window // 2) if shifted else None
        self.register_buffer("attn_mask", mask)

    def forward(self, x: Tensor, guide: tuple[Tensor, ...]) -> Tensor:
        mask = self.attn_mask
        x = x + self.attn(self.norm1(x), guide, mask if isinstance(mask, Tensor) else None)
        return x + self.mlp(self.norm2(x))


class SwinMlp(nn.Module):
    """Linear, GELU, Linear."""

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.hidden)
        self.fc2 = nn.Linear(config.hidden, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class GuidedAttention(Fixed):
    """q and k of [x, guidance], v of x; q is scaled by `scale`."""

    def __init__(self, width: int, guidance: int, scale: float) -> None:
        super().__init__()
        self.width, self.scale = width, scale
        self.q = nn.Linear(width + guidance, width)
        self.k = nn.Linear(width + guidance, width)
        self.v = nn.Linear(width, width)

    def guide(self, guidance: Tensor) -> tuple[Tensor, Tensor]:
        """The guidance's share of q and k, biases included."""
        q_weight, k_weight = self._half("q", guided=True), self._half("k", guided=True)
        q_bias = self.derive("q_bias", lambda: self.q.bias * self.scale)
        return guidance @ q_weight + q_bias, guidance @ k_weight + self.k.bias

    def keys(self, x: Tensor, name: str) -> Tensor:
        """The share of x in "q" or "k"."""
        return x @ self._half(name, guided=False)

    def _half(self, name: str, *, guided: bool) -> Tensor:
        columns = slice(self.width, None) if guided else slice(self.width)
        linear, scale = (self.q, self.scale) if name == "q" else (self.k, 1.0)
        return self.derive(f"{name}_{'guided' if guided else 'own'}", lambda: (linear.weight[:, columns] * scale).t())


class WindowAttention(GuidedAttention):
    """Attention within windows; windows and heads share an axis, so that the mask is one constant."""

    def __init__(self, config: SwinConfig) -> None:
        super().__init__(config.width, config.guidance, (config.width // config.heads) ** -0.5)
        self.heads, self.length = config.heads, config.window**2
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, guide: tuple[Tensor, ...], mask: Tensor | None) -> Tensor:
        parts = (self.keys(x, "q") + guide[0], self.keys(x, "k") + guide[1], self.v(x))
        q, k, v = (self._windows(part) for part in parts)
        bias = None if mask is None else self.derive("mask", lambda: mask.repeat_interleave(self.heads, 0)[None])
        y = attend(q, k, v, bias)
        windows = int(x.shape[1]) // self.length
        y = y.reshape(-1, windows, self.heads, self.length, self.width // self.heads).transpose(2, 3)
        return self.proj(y.reshape(-1, windows * self.length, self.width))

    def _windows(self, x: Tensor) -> Tensor:
        """(n, L, C) → (n, windows * heads, window², d)."""
        windows, width = int(x.shape[1]) // self.length, self.width // self.heads
        y = x.reshape(-1, windows, self.length, self.heads, width).transpose(2, 3)
        return y.reshape(-1, windows * self.heads, self.length, width)
