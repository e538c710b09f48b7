"""Universal segment embeddings (Wang et al., CVPR 2024): patches embedded once, segments as weighted means of patches.

`DenseClip` needs no training: the patch features of CLIP's surgery stream already lie in the space of its texts.
"""

from __future__ import annotations

from torch import Tensor, nn

from .clip import ClipConfig, ClipTrunk
from .layers import unit


class DenseClip(nn.Module):
    """Image (B, 3, h, w), CLIP-normalised → patch embeddings (B, L, D), unit rows, row-major."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.trunk = ClipTrunk(config)

    def forward(self, image: Tensor) -> Tensor:
        surgery = self.trunk(image)[-1]
        return unit(self.trunk.ln_post(surgery[:, 1:]) @ self.trunk.proj)


class SegmentHead(nn.Module):
    """Patch embeddings (1, L, C) and segment weights (S, L), rows that sum up to 1 → segment embeddings (S, D), unit.

    Args:
        project: C → D, into the space of the texts; None where the patches are there already.
    """

    def __init__(self, project: nn.Linear | None = None) -> None:
        super().__init__()
        self.project = project
        self.fp32_unit = Unit()

    def forward(self, patches: Tensor, weights: Tensor) -> Tensor:
        mean = weights @ patches[0]
        return self.fp32_unit(mean if self.project is None else self.project(mean))


class Unit(nn.Module):
    """Rows of length one, in fp32: a length is a sum of many squares."""

    def forward(self, x: Tensor) -> Tensor:
        return unit(x)


class SegmentScore(nn.Module):
    """Segment embeddings (S, D), text (C, D), unit rows → class probabilities (1, S, C).

    Args:
        scale: of the cosine, 1 / temperature.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, segments: Tensor, text: Tensor) -> Tensor:
        return (segments @ text.t() * self.scale).softmax(dim=-1)[None]
