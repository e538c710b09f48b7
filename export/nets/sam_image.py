"""SAM's ViT image encoder with its neck: what makes the embedding that the mask decoder reads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import to_image
from .sam import SamConfig, SamEncoder


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of (B, C, H, W), written as one LayerNormalization between two transpositions.

    As one operator it sums in fp32 also where the rest is fp16.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, 1e-6)
        return y.permute(0, 3, 1, 2)


class Neck(nn.Sequential):
    """1x1 convolution, norm, 3x3 convolution, norm: (B, inputs, h, w) → (B, width, h, w)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, width, 1, bias=False),
            ChannelNorm(width),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            ChannelNorm(width),
        )


class SamImage(SamEncoder):
    """Image (B, 3, H, W), SAM-normalised → embedding (B, neck, H/patch, W/patch)."""

    def __init__(self, config: SamConfig, neck: int) -> None:
        super().__init__(config)
        self.neck = Neck(config.width, neck)

    @property
    def grid(self) -> int:
        """Cells of the embedding on each side, at the size it was trained for."""
        return self.config.grid

    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]  # the embedding in place of the taps
        size = int(image.shape[-2]) // self.config.patch, int(image.shape[-1]) // self.config.patch
        return self.neck(to_image(super().forward(image)[-1], size))
