"""The fusion of CLIP into SAM and the multi-scale deformable pixel decoder (Mask2Former's, as EBSeg configures it).

Parameters carry the published names. Exact rewrites: 1x1 convolutions commute with bilinear resizing, so every map is
projected to the decoder's width before it is enlarged, and CLIP's fusion convolution is multiplied into the projection
that follows it; deformable sampling is written as a gather of rows from a zero-bordered table (no GridSample).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .fixed import Fixed, Project
from .layers import resize, sine_positions, to_image, to_tokens

Size = tuple[int, int]
LEVELS = 3


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of pixel and mask decoder; `inputs`: SAM's width, `clip`: CLIP's, `bias_heads`: heads of CLIP's tail."""

    inputs: int = 768
    clip: int = 768
    width: int = 256
    heads: int = 8
    points: int = 4
    encoder_layers: int = 6
    encoder_hidden: int = 1024
    decoder_layers: int = 9
    decoder_hidden: int = 2048
    queries: int = 100
    embedding: int = 512
    bias_heads: int = 12
    groups: int = 32


class ClipFusion(nn.Sequential):
    """LayerNorm over channels and a 1x1 convolution, under the published names `0` and `1`."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(nn.LayerNorm(config.clip, eps=1e-6), nn.Conv2d(config.clip, config.inputs, kernel_size=1))

    @property
    def norm(self) -> nn.LayerNorm:
        """Over the channels."""
        return cast(nn.LayerNorm, self[0])

    @property
    def conv(self) -> nn.Conv2d:
        """From CLIP's width to SAM's."""
        return cast(nn.Conv2d, self[1])


class InputProjection(nn.Sequential):
    """A 1x1 convolution and GroupNorm, under the published names `0` and `1`."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(nn.Conv2d(config.inputs, config.width, 1), nn.GroupNorm(config.groups, config.width))

    @property
    def conv(self) -> nn.Conv2d:
        """From SAM's width to the decoder's."""
        return cast(nn.Conv2d, self[0])

    @property
    def norm(self) -> nn.GroupNorm:
        """Of the projected map."""
        return cast(nn.GroupNorm, self[1])


class PixelDecoder(Fixed):
    """SAM maps and CLIP maps → mask features at stride 4 and three maps at strides 32, 16, 8."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.input_proj = nn.ModuleList(InputProjection(config) for _ in range(LEVELS))
        self.transformer = DeformableEncoder(config)
        self.adapter_1 = NormedConv(config.inputs, config, kernel=1)
        self.layer_1 = NormedConv(config.width, config, kernel=3)
        self.mask_features = nn.Conv2d(config.width, config.width, 1)
        self.sam, self.clip = Project(), Project()

    def forward(
        self, sam: tuple[Tensor, ...], clip: tuple[Tensor, ...], fusion: nn.ModuleList, grids: tuple[Size, Size]
    ) -> tuple[Tensor, list[Tensor]]:
        """Both in the order of depth: `sam` four (B, N, inputs) on `grids[0]`, `clip` three (B, L, clip) on `grids[1]`.

        Returns mask features (B, width, 4*gh, 4*gw) and the tokens (B, S, width) of strides 32, 16, 8.
        """
        sizes = level_sizes(grids[0])
        sources = [
            self._source(level, (sam[3 - level], clip[2 - level]), cast(ClipFusion, fusion[2 - level]), grids)
            for level in range(LEVELS)
        ]
        tokens = self.transformer([to_tokens(source) for source in sources], sizes)
        fine = self._finest(sam[0], to_image(tokens[2], sizes[2]), grids[0])
        return self.mask_features(fine), tokens

    def _source(self, level: int, maps: tuple[Tensor, Tensor], fusion: ClipFusion, grids: tuple[Size, Size]) -> Tensor:
        """One level's SAM and CLIP map, projected, brought to the level's size, added and normed: (B, width, h, w)."""
        projection = cast(InputProjection, self.input_proj[level])
        matrix = projection.conv.weight[:, :, 0, 0]
        weight = self.derive(f"sam{level}_weight", matrix.t)
        clip_weight = self.derive(f"clip{level}_weight", lambda: (matrix @ fusion.conv.weight[:, :, 0, 0]).t())
        fused, own = cast(Tensor, fusion.conv.bias), cast(Tensor, projection.conv.bias)
        bias = self.derive(f"clip{level}_bias", lambda: matrix @ fused + own)
        from_sam = to_image(self.sam(maps[0], weight), grids[0])
        from_clip = to_image(self.clip(fusion.norm(maps[1]), clip_weight, bias), grids[1])
        size = level_sizes(grids[0])[level]
        # SAM's map at half its size is the mean of 2x2 cells: bilinear resizing by 0.5 on an even grid.
        from_sam = F.avg_pool2d(from_sam, 2) if level == 0 else resize(from_sam, size)
        return projection.norm(from_sam + resize(from_clip, size))

    def _finest(self, sam: Tensor, coarse: Tensor, grid: Size) -> Tensor:
        size = grid[0] * 4, grid[1] * 4
        weight = self.derive("adapter_weight", lambda: self.adapter_1.weight[:, :, 0, 0].t())
        lateral = self.adapter_1.norm(resize(to_image(self.sam(sam, weight), grid), size))
        return self.layer_1(lateral + resize(coarse, size))


def level_sizes(grid: Size) -> list[Size]:
    """The maps of strides 32, 16 and 8, SAM's grid being of stride 16."""
    rows, columns = grid
    return [(rows // 2, columns // 2), (rows, columns), (rows * 2, columns * 2)]


class NormedConv(nn.Module):
    """Convolution without bias, GroupNorm, ReLU; the weight is a parameter of its own, as published."""

    def __init__(self, inputs: int, config: DecoderConfig, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(config.width, inputs, kernel, kernel))
        self.norm = nn.GroupNorm(config.groups, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(F.conv2d(x, self.weight, padding=self.weight.shape[-1] // 2)).relu()


class DeformableEncoder(Fixed):
    """Deformable self-attention over the tokens of three maps (Zhu et al. 2021)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.level_embed = nn.Parameter(torch.zeros(LEVELS, config.width))
        self.encoder = Layers(DeformableLayer(config) for _ in range(config.encoder_layers))

    def forward(self, tokens: list[Tensor], sizes: list[Size]) -> list[Tensor]:
        x = torch.cat(tokens, dim=1)
        positions = self.derive("positions", lambda: self._positions(sizes, x))
        layers: Any = self.encoder.layers
        for layer in layers:
            x = layer(x, positions, sizes)
        return list(x.split([rows * columns for rows, columns in sizes], dim=1))

    def _positions(self, sizes: list[Size], x: Tensor) -> Tensor:
        tables = [sine_positions(size, x.shape[-1]).to(x) + self.level_embed[i] for i, size in enumerate(sizes)]
        return torch.cat(tables, dim=1)


class Layers(nn.Module):
    """A list of layers under the published name `layers`."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


class DeformableLayer(nn.Module):
    """Post-norm layer: deformable attention, then a perceptron."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(config)
        self.norm1 = nn.LayerNorm(config.width)
        self.linear1 = nn.Linear(config.width, config.encoder_hidden)
        self.linear2 = nn.Linear(config.encoder_hidden, config.width)
        self.norm2 = nn.LayerNorm(config.width)

    def forward(self, x: Tensor, positions: Tensor, sizes: list[Size]) -> Tensor:
        x = self.norm1(x + self.self_attn(x + positions, x, sizes))
        return self.norm2(x + self.linear2(self.linear1(x).relu()))


class DeformableAttention(Fixed):
    """Each token reads `points` bilinear samples per head from each of three maps."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.heads, self.points = config.heads, config.points
        samples = config.heads * LEVELS * config.points
        self.sampling_offsets = nn.Linear(config.width, 2 * samples)
        self.attention_weights = nn.Linear(config.width, samples)
        self.value_proj = nn.Linear(config.width, config.width)
        self.output_proj = nn.Linear(config.width, config.width)
        self.offsets, self.fp32_coordinates = Project(), SamplePoints()

    def forward(self, query: Tensor, value: Tensor, sizes: list[Size]) -> Tensor:
        batch, length, width = query.shape
        samples = self.heads * self.points
        offsets = self._offsets(query)
        attention = self.attention_weights(query).reshape(batch, length, self.heads, LEVELS * self.points).softmax(-1)
        tables = bordered(self.value_proj(value), sizes, self.heads)
        parts = []
        for level in range(len(sizes)):
            x, y = (cut(offsets, axis * LEVELS + level, samples) for axis in (0, 1))
            corners, shares = self.fp32_coordinates(x, y, (level, self.heads), sizes)
            weight = cut(attention, level, self.points).reshape(batch, length, samples, 1)
            share = (weight * shares.to(weight.dtype)).reshape(batch * length * self.heads, 1, self.points * 4)
            rows = tables[level].index_select(0, corners.flatten())
            parts.append(share @ rows.reshape(batch * length * self.heads, self.points * 4, width // self.heads))
        return self.output_proj((parts[0] + parts[1] + parts[2]).reshape(batch, length, width))

    def _offsets(self, query: Tensor) -> Tensor:
        """Offsets in cells of each level, (B, S, 2 * levels * heads * points): x before y, then level by level."""
        linear = self.sampling_offsets

        def order(rows: Tensor) -> Tensor:
            split = rows.reshape(self.heads, LEVELS, self.points, 2, *rows.shape[1:])
            return split.permute(3, 1, 0, 2, *range(4, split.ndim)).reshape(rows.shape)

        weight = self.derive("offsets_weight", lambda: order(linear.weight).t())
        return self.offsets(query, weight, self.derive("offsets_bias", lambda: order(linear.bias)))


class SamplePoints(Fixed):
    """Where each sample of one level falls: row numbers into the bordered table, and each corner's bilinear share.

    Coordinates are in cells, clipped to the border of zeros. Half precision would place them several hundredths of a
    cell off, so a typed fp16 graph keeps this module in fp32.
    """

    def forward(self, x: Tensor, y: Tensor, place: tuple[int, int], sizes: list[Size]) -> tuple[Tensor, Tensor]:
        """Offsets (B, S, heads*points) on x and y; `place`: level, heads → rows and shares (B, S, heads*points, 4)."""
        level, heads = place
        height, width = sizes[level]
        x = (x + self.derive(f"base_x{level}", lambda: centres(sizes, level, 1).to(x))).clamp(-1.0, float(width))
        y = (y + self.derive(f"base_y{level}", lambda: centres(sizes, level, 0).to(y))).clamp(-1.0, float(height))
        left, top = x.floor().clamp(max=width - 1.0), y.floor().clamp(max=height - 1.0)
        right, down = x - left, y - top
        far = right * down
        shares = torch.stack((1 - right - down + far, right - far, down - far, far), dim=-1)
        # A row of the table is one head of one cell; a batch's tables follow each other.
        points = x.shape[-1] // heads
        first = self.derive(
            f"first{level}", lambda: torch.arange(heads).repeat_interleave(points).to(x) + (width + 3) * heads
        )
        number = (top * float((width + 2) * heads) + left * float(heads) + first).to(torch.int32)
        if x.shape[0] > 1:
            step = (height + 2) * (width + 2) * heads
            number = number + torch.arange(x.shape[0], dtype=torch.int32, device=x.device)[:, None, None] * step
        below = (width + 2) * heads
        return torch.stack((number, number + heads, number + below, number + (below + heads)), dim=-1), shares


def cut(x: Tensor, index: int, width: int) -> Tensor:
    """The `index`-th piece of `width` channels."""
    return x[..., index * width : (index + 1) * width]


def centres(sizes: list[Size], level: int, axis: int) -> Tensor:
    """(S, 1): the centre of every token of every map along an axis, in cells of one level, less one half."""
    places = []
    for rows, columns in sizes:
        grid = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")[axis]
        places.append(grid.flatten() / (rows, columns)[axis])
    return (torch.cat(places) * sizes[level][axis] - 0.5)[:, None]


def bordered(value: Tensor, sizes: list[Size], heads: int) -> list[Tensor]:
    """Tokens (B, S, C) → per level a table (B*(H+2)*(W+2)*heads, C/heads), with a border of zeros around each map."""
    batch, _, width = value.shape
    tables = []
    for part, size in zip(value.split([rows * columns for rows, columns in sizes], dim=1), sizes, strict=True):
        grid = F.pad(part.reshape(batch, *size, width), (0, 0, 1, 1, 1, 1))
        tables.append(grid.reshape(-1, width // heads))
    return tables
