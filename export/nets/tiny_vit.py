"""MobileSAM's image encoder: TinyViT up to stride 16, and SAM's neck (Wu et al. 2022; Zhang et al. 2023).

Parameters carry the published names. Exact rewrites: batch norms are folded into their convolutions; q, k and v, which
the file interleaves head by head, are separate products with the scale in q; the output projection runs after the
windows' padding is cut off. Tokens that pad a window at right and bottom are zero before the norm, as published.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .fixed import Fixed, Project
from .layers import attend, to_image, to_tokens
from .sam import from_tiles
from .sam_image import Neck

Size = tuple[int, int]


@dataclass(frozen=True)
class TinyVitConfig:
    """Sizes of the encoder; of each stage its width, blocks, attention heads and window side. Stage 0 is convolutions.

    `image` is the side of the square it was trained for; stages 1 and 2 begin at strides 8 and 16.
    """

    image: int = 1024
    widths: tuple[int, ...] = (64, 128, 160, 320)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (2, 4, 5, 10)
    windows: tuple[int, ...] = (7, 7, 14, 7)
    neck: int = 256

    @property
    def grid(self) -> int:
        """Cells of the embedding on each side."""
        return self.image // 16


class TinyVit(nn.Module):
    """Image (B, 3, H, W), SAM-normalised → embedding (B, neck, H/16, W/16)."""

    def __init__(self, config: TinyVitConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config.widths[0])
        # From stride 4 on: the first two stages halve, the third only widens, so that the embedding is SAM's.
        self.layers = nn.ModuleList(Stage(config, i) for i in range(4))
        self.neck = Neck(config.widths[3], config.neck)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patch_embed(image)
        for layer in self.layers:
            x = layer(x)
        return self.neck(x)


class FoldedConv(Fixed):
    """A convolution without bias and the batch norm behind it, as one convolution; `c` and `bn` hold the weights."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = BatchStatistics(outputs)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.derive("weight", lambda: self.c.weight * self.bn.scale()[:, None, None, None])
        bias = self.derive("bias", lambda: self.bn.bias - self.bn.running_mean * self.bn.scale())
        return F.conv2d(x, weight, bias, self.c.stride, self.c.padding, groups=self.c.groups)


class BatchStatistics(nn.Module):
    """What a batch norm has learned, under its published names; it is applied by what holds it."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def scale(self) -> Tensor:
        """The factor of each channel."""
        return self.weight * torch.rsqrt(self.running_var + 1e-5)


class PatchEmbed(nn.Module):
    """Image → features at stride 4, by two strided convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(FoldedConv(3, width // 2, 3, 2), nn.GELU(), FoldedConv(width // 2, width, 3, 2))

    def forward(self, image: Tensor) -> Tensor:
        return self.seq(image)


class Stage(nn.Module):
    """Blocks over (B, C, H, W), then, but for the last stage, the step to the next stage's width."""

    def __init__(self, config: TinyVitConfig, index: int) -> None:
        super().__init__()
        width, depth = config.widths[index], config.depths[index]
        blocks = [
            TinyBlock(width, config.heads[index], config.windows[index]) if index else ConvBlock(width)
            for _ in range(depth)
        ]
        self.blocks = nn.ModuleList(blocks)
        if index < 3:
            self.downsample = Merging(width, config.widths[index + 1], stride=2 if index < 2 else 1)
        self.last = index == 3

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.last else self.downsample(x)


class ConvBlock(nn.Module):
    """Inverted bottleneck with a residual, GELU behind the sum; four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = FoldedConv(width, 4 * width, 1)
        self.conv2 = FoldedConv(4 * width, 4 * width, 3, groups=4 * width)
        self.conv3 = FoldedConv(4 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        return F.gelu(x + self.conv3(y))


class Merging(nn.Module):
    """The step between stages: a wider, for stride 2 smaller, map."""

    def __init__(self, width: int, wider: int, stride: int) -> None:
        super().__init__()
        self.conv1 = FoldedConv(width, wider, 1)
        self.conv2 = FoldedConv(wider, wider, 3, stride, groups=wider)
        self.conv3 = FoldedConv(wider, wider, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


class TinyBlock(nn.Module):
    """Window attention, a depthwise convolution, a perceptron; over (B, C, H, W)."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.attn = TinyAttention(width, heads, window)
        self.local_conv = FoldedConv(width, width, 3, groups=width)
        self.mlp = TinyMlp(width)

    def forward(self, x: Tensor) -> Tensor:
        size = int(x.shape[-2]), int(x.shape[-1])
        tokens = to_tokens(x)
        x = self.local_conv(to_image(tokens + self.attn(tokens, size), size))
        tokens = to_tokens(x)
        return to_image(tokens + self.mlp(tokens), size)


class TinyMlp(nn.Module):
    """Norm, linear, GELU, linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class TinyAttention(Fixed):
    """Attention inside windows, with one learned bias per head and distance; tokens (B, H*W, C), row-major."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window**2))
        self.q, self.k, self.v = Project(), Project(), Project()

    def forward(self, x: Tensor, size: Size) -> Tensor:
        tile = (self.window, self.window)
        windows = self.norm(self._windows(x, size))
        q, k, v = (self._project(windows, part) for part in range(3))
        y = attend(q, k, v, self.derive("bias", self._bias))
        return self.proj(from_tiles(y, size, tile))

    def _windows(self, x: Tensor, size: Size) -> Tensor:
        """(B*windows, window², C), padded with zeros."""
        batch, _, width = x.shape
        rows, columns = -(-size[0] // self.window), -(-size[1] // self.window)
        grid = x.reshape(batch, *size, width)
        if (rows * self.window, columns * self.window) != size:
            grid = F.pad(grid, (0, 0, 0, columns * self.window - size[1], 0, rows * self.window - size[0]))
        grid = grid.reshape(batch, rows, self.window, columns, self.window, width).transpose(2, 3)
        return grid.reshape(batch * rows * columns, self.window**2, width)

    def _project(self, x: Tensor, part: int) -> Tensor:
        """q, k or v as heads (B*windows, h, window², d)."""
        width, name = x.shape[-1] // self.heads, "qkv"[part]
        scale = width**-0.5 if part == 0 else 1.0

        def rows(fused: Tensor) -> Tensor:
            split = fused.reshape(self.heads, 3, width, -1)  # the file has q, k and v of one head after the other
            return split[:, part].reshape(self.heads * width, -1) * scale

        weight = self.derive(f"{name}_weight", lambda: rows(self.qkv.weight).t())
        bias = self.derive(f"{name}_bias", lambda: rows(self.qkv.bias)[:, 0])
        y = (self.q, self.k, self.v)[part](x, weight, bias)
        return y.reshape(x.shape[0], x.shape[1], self.heads, width).transpose(1, 2)

    def _bias(self) -> Tensor:
        """(h, window², window²): the bias of a pair is that of its distances down and across."""
        places = torch.arange(self.window, device=self.attention_biases.device)
        apart = (places[:, None] - places[None, :]).abs()
        index = apart[:, None, :, None] * self.window + apart[None, :, None, :]
        return self.attention_biases[:, index.reshape(self.window**2, self.window**2)]
