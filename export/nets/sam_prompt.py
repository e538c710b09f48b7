"""SAM's prompt encoder for points and boxes (Kirillov et al. 2023; facebookresearch/segment-anything).

Parameters carry the published names. A prompt is a fixed number of points with labels; a box is its two corners. The
label says which learned vector is added, which is a product with a one-hot row: no data-dependent indices.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .fixed import Fixed

LABELS = (-1, 0, 1, 2, 3)
"""Of a point: padding, background, object, top left corner of a box, bottom right corner."""


class PromptEncoder(Fixed):
    """Points (N, P, 2), (x, y) in pixels of the canvas, and labels (N, P) → tokens (N, P, C).

    Args:
        width: C.
        canvas: side of the square that the points lie on, pixels.
    """

    def __init__(self, width: int, canvas: int) -> None:
        super().__init__()
        self.canvas = canvas
        self.pe_layer = FourierPositions(width // 2)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, width) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, width)
        self.no_mask_embed = nn.Embedding(1, width)
        self.fp32_coordinates = Coordinates()

    def forward(self, points: Tensor, labels: Tensor) -> Tensor:
        table = self.derive("table", self._table)
        kinds = self.derive("kinds", lambda: torch.tensor(LABELS, dtype=torch.float32))
        places = self.fp32_coordinates((points + 0.5) / self.canvas, self.pe_layer.matrix)
        one_hot = (labels[..., None] == kinds.to(labels.dtype)).to(points.dtype)
        known = 1 - one_hot[..., :1]  # a padding point has no place
        return places * known + one_hot @ table

    def _table(self) -> Tensor:
        rows = [self.not_a_point_embed, *self.point_embeddings]
        return torch.cat([row.weight for row in rows])

    def grid_positions(self, grid: int) -> Tensor:
        """Positions of the cells of the image's embedding, (grid², C), row-major."""
        centres = (torch.arange(grid, dtype=torch.float32) + 0.5) / grid
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        matrix = self.pe_layer.matrix
        return self.fp32_coordinates(torch.stack((x, y), dim=-1).reshape(-1, 2).to(matrix), matrix)


class FourierPositions(nn.Module):
    """Holds the random frequencies, (2, C/2), under their published name."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.zeros(2, width))

    @property
    def matrix(self) -> Tensor:
        """The frequencies."""
        return self.get_buffer("positional_encoding_gaussian_matrix")


class Coordinates(nn.Module):
    """(x, y) in 0..1 and frequencies (2, C/2) → sines and cosines (..., C); in fp32, which angles need."""

    def forward(self, places: Tensor, frequencies: Tensor) -> Tensor:
        angle = (2 * places - 1) @ frequencies * (2 * math.pi)
        return torch.cat((angle.sin(), angle.cos()), dim=-1)
