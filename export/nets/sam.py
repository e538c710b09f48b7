"""SAM's ViT image encoder without the neck (Kirillov et al. 2023; facebookresearch/segment-anything, image_encoder.py).

Parameters carry the published names. Three exact rewrites: q, k and v are separate products computed before the windows
are padded (a padded token is zero, so its q, k and v are the bias), the output projection runs after the padding is cut
off, and the decomposed relative positions are summed into one (N, N) bias in front of the softmax, the form that
compilers fuse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .fixed import Fixed, Project
from .layers import attend, merge_heads, resize_grid, split_heads

Size = tuple[int, int]


@dataclass(frozen=True)
class SamConfig:
    """Sizes of the encoder; `grid` is the trained position grid, `taps` the global blocks, whose outputs are given."""

    width: int = 768
    depth: int = 12
    heads: int = 12
    patch: int = 16
    grid: int = 64
    window: int = 14
    taps: tuple[int, ...] = (2, 5, 8, 11)
    hidden: int = 3072


class SamEncoder(Fixed):
    """Image (B, 3, H, W), SAM-normalised → for each global block its tokens (B, H/patch * W/patch, width)."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.grid, config.grid, config.width))
        self.blocks = nn.ModuleList(
            SamBlock(config, config.grid if i in config.taps else config.window, windowed=i not in config.taps)
            for i in range(config.depth)
        )

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        config = self.config
        size = int(image.shape[-2]) // config.patch, int(image.shape[-1]) // config.patch
        x = self.patch_embed(image)
        x = x + self.derive("positions", lambda: self._positions(size))
        outputs = []
        for i, block in enumerate(self.blocks):
            x = block(x, size)
            if i in config.taps:
                outputs.append(x)
        return tuple(outputs)

    def _positions(self, size: Size) -> Tensor:
        grid = self.config.grid
        return resize_grid(self.pos_embed.reshape(1, grid * grid, -1), (grid, grid), size)


class PatchEmbed(nn.Module):
    """Image → tokens by one strided convolution."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.width, kernel_size=config.patch, stride=config.patch)

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(image).flatten(2).transpose(1, 2)


class SamBlock(nn.Module):
    """Pre-norm transformer block over (B, N, C)."""

    def __init__(self, config: SamConfig, table: int, windowed: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=1e-6)
        self.attn = SamAttention(config, table, windowed)
        self.norm2 = nn.LayerNorm(config.width, eps=1e-6)
        self.mlp = SamMlp(config)

    def forward(self, x: Tensor, size: Size) -> Tensor:
        x = x + self.attn(self.norm1(x), size)
        return x + self.mlp(self.norm2(x))


class SamMlp(nn.Module):
    """Linear, GELU, Linear."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.lin1 = nn.Linear(config.width, config.hidden)
        self.lin2 = nn.Linear(config.hidden, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(F.gelu(self.lin1(x)))


class SamAttention(Fixed):
    """Attention with decomposed relative positions, over windows or over the whole grid."""

    def __init__(self, config: SamConfig, table: int, windowed: bool) -> None:
        super().__init__()
        width, self.heads, self.windowed = config.width, config.heads, windowed
        self.head_width = width // config.heads
        self.window = config.window
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * table - 1, self.head_width))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * table - 1, self.head_width))
        self.q, self.k, self.v, self.bias = Project(), Project(), Project(), RelativeBias()

    def forward(self, x: Tensor, size: Size) -> Tensor:
        tile = (self.window, self.window) if self.windowed else size
        q, k, v = (self._project(x, part, size) for part in range(3))
        tables = (
            self.derive("rows", lambda: self._table(self.rel_pos_h, tile[0])),
            self.derive("columns", lambda: self._table(self.rel_pos_w, tile[1])),
        )
        y = attend(q, k, v, self.bias(q, tile, *tables))
        return self.proj(from_tiles(y, size, tile) if self.windowed else merge_heads(y))

    def _project(self, x: Tensor, part: int, size: Size) -> Tensor:
        """q, k or v as heads: (B, h, H*W, d), or of every window (B*windows, h, window², d)."""
        # The scale 1/sqrt(d) goes into q's weights; the relative positions, which want q unscaled, are divided by it.
        name, scale = "qkv"[part], self.head_width**-0.5 if part == 0 else 1.0
        rows = slice(part * x.shape[-1], (part + 1) * x.shape[-1])
        weight = self.derive(f"{name}_weight", lambda: (self.qkv.weight[rows] * scale).t())
        bias = self.derive(f"{name}_bias", lambda: self.qkv.bias[rows] * scale)
        y = (self.q, self.k, self.v)[part](x, weight)
        if not self.windowed:
            return split_heads(y + bias, self.heads)
        return to_tiles(y, bias, size, self.window, self.heads)

    def _table(self, table: Tensor, extent: int) -> Tensor:
        """(extent, d, extent): for query i the embedding of every key j, from the table resized to 2*extent-1."""
        rows = 2 * extent - 1
        if table.shape[0] != rows:
            table = F.interpolate(table.t()[None], size=rows, mode="linear", align_corners=False)[0].t()
        index = torch.arange(extent)[:, None] - torch.arange(extent)[None, :] + extent - 1
        return table[index.to(table.device)].transpose(1, 2) * self.head_width**0.5


class RelativeBias(nn.Module):
    """q (B, h, H*W, d), tables (H, d, H) and (W, d, W) → bias (B, h, H*W, H*W) that is added to the scores."""

    def forward(self, q: Tensor, tile: Size, rows: Tensor, columns: Tensor) -> Tensor:
        batch, heads, length, width = q.shape
        grid = q.reshape(batch, heads, *tile, width)
        by_row = grid @ rows  # (B, h, H, W, H)
        by_column = (grid.transpose(2, 3) @ columns).transpose(2, 3)  # (B, h, H, W, W)
        bias = by_row[..., :, None] + by_column[..., None, :]
        return bias.reshape(batch, heads, length, length)


def to_tiles(x: Tensor, bias: Tensor, size: Size, window: int, heads: int) -> Tensor:
    """Tokens (B, H*W, C) → heads of windows (B*rows*columns, heads, window², C/heads).

    Windows that stick out at right and bottom are padded with zeros before the bias (C,) is added: what a linear layer
    makes of a zero token is its bias, and the published encoder attends to such tokens.
    """
    batch, _, channels = x.shape
    rows, columns = -(-size[0] // window), -(-size[1] // window)
    grid = x.reshape(batch, *size, channels)
    if (rows * window, columns * window) != size:
        grid = F.pad(grid, (0, 0, 0, columns * window - size[1], 0, rows * window - size[0]))
    grid = (grid + bias).reshape(batch, rows, window, columns, window, heads, channels // heads)
    return grid.permute(0, 1, 3, 5, 2, 4, 6).reshape(batch * rows * columns, heads, window * window, channels // heads)


def from_tiles(y: Tensor, size: Size, tile: Size) -> Tensor:
    """Heads of windows (B*rows*columns, h, window², d) → tokens (B, H*W, h*d), the padding cut off."""
    heads, width = y.shape[1], y.shape[3]
    rows, columns = -(-size[0] // tile[0]), -(-size[1] // tile[1])
    batch = int(y.shape[0]) // (rows * columns)
    y = y.reshape(batch, rows, columns, heads, *tile, width).permute(0, 1, 4, 2, 5, 3, 6)
    y = y.reshape(batch, rows * tile[0], columns * tile[1], heads * width)
    return y[:, : size[0], : size[1]].reshape(batch, size[0] * size[1], heads * width)


def taps_of(rows: Sequence[int], grid: int) -> tuple[int, ...]:
    """The global blocks, from the length of each block's relative position table."""
    return tuple(i for i, length in enumerate(rows) if length == 2 * grid - 1)
