"""Building blocks the networks share: attention in the form that compilers fuse, position tables, poolings.

Shapes: B batch, N tokens, C channels, h heads, d channels of a head. Tokens are row-major over an (H, W) grid.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, C) → (B, h, N, C/h)."""
    batch, length, width = x.shape
    return x.reshape(batch, length, heads, width // heads).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, h, N, d) → (B, N, h*d)."""
    batch, heads, length, width = x.shape
    return x.transpose(1, 2).reshape(batch, length, heads * width)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ + bias) v over (B, h, N, d); the scale is already in q.

    Written as MatMul, Add, Softmax, MatMul: the form that TensorRT's compilers turn into one fused kernel.
    """
    scores = q @ k.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias
    return scores.softmax(dim=-1) @ v


def resize_grid(tokens: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Bicubic resize of a position table (1, H*W, C) to `size`, as torch does without antialiasing."""
    if grid == size:
        return tokens
    image = tokens.reshape(1, *grid, -1).permute(0, 3, 1, 2)
    image = F.interpolate(image, size=size, mode="bicubic", align_corners=False)
    return image.permute(0, 2, 3, 1).reshape(1, size[0] * size[1], -1)


def sine_positions(size: tuple[int, int], width: int) -> Tensor:
    """The normalised sine position table of DETR, (1, H*W, width): the y half before the x half."""
    rows, columns = size
    half = width // 2
    period = 10000 ** (2 * torch.div(torch.arange(half), 2, rounding_mode="floor") / half)

    def encode(extent: int) -> Tensor:
        angle = torch.arange(1, extent + 1) / (extent + 1e-6) * 2 * math.pi
        phase = angle[:, None] / period
        return torch.stack((phase[:, 0::2].sin(), phase[:, 1::2].cos()), dim=2).flatten(1)

    y = encode(rows)[:, None].expand(rows, columns, half)
    x = encode(columns)[None].expand(rows, columns, half)
    return torch.cat((y, x), dim=2).reshape(1, rows * columns, width).float()


def to_image(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H*W, C) → (B, C, H, W)."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], *size)


def to_tokens(image: Tensor) -> Tensor:
    """(B, C, H, W) → (B, H*W, C)."""
    return image.flatten(2).transpose(1, 2)


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize without antialiasing; left out of the graph when there is nothing to do."""
    if (int(image.shape[-2]), int(image.shape[-1])) == size:
        return image
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)


def max_pool_to(image: Tensor, size: tuple[int, int]) -> Tensor:
    """`adaptive_max_pool2d` with static windows, so that ONNX can say it also where the windows are not uniform.

    Output i covers floor(i*I/O) up to ceil((i+1)*I/O). A rectangle's maximum is separable: columns, then rows. Windows
    differ by at most one cell in length; the short ones repeat their last cell, which no maximum notices.
    """
    extent = int(image.shape[-2]), int(image.shape[-1])
    if all(i % o == 0 for i, o in zip(extent, size, strict=True)):
        kernel = (extent[0] // size[0], extent[1] // size[1])
        return F.max_pool2d(image, kernel_size=kernel, stride=kernel)
    for axis in (-1, -2):
        image = _max_pool_axis(image, axis, size[axis])
    return image


def _max_pool_axis(image: Tensor, axis: int, output: int) -> Tensor:
    extent = int(image.shape[axis])
    starts = [i * extent // output for i in range(output)]
    ends = [-(-(i + 1) * extent // output) for i in range(output)]
    width = max(end - start for start, end in zip(starts, ends, strict=True))
    cells = [[min(start + j, end - 1) for start, end in zip(starts, ends, strict=True)] for j in range(width)]
    index = torch.tensor(cells, device=image.device)
    pooled = image.index_select(axis, index[0])
    for row in index[1:]:
        pooled = torch.maximum(pooled, image.index_select(axis, row))
    return pooled


class Perceptron(nn.Module):
    """Linear layers with ReLU between them, under the published name `layers.N`."""

    def __init__(self, inputs: int, hidden: int, outputs: int, depth: int) -> None:
        super().__init__()
        widths = [inputs, *[hidden] * (depth - 1), outputs]
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


def unit(x: Tensor) -> Tensor:
    """Rows of length one, with torch's own guard against a zero row."""
    return F.normalize(x, dim=-1)
