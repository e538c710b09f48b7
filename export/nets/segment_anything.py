"""A whole SAM: image encoder (ViT or TinyViT), prompt encoder, mask decoder, as its file names them; and its graphs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .fixed import Fixed
from .layers import to_tokens
from .sam import SamConfig
from .sam_decoder import DecoderConfig, MaskDecoder
from .sam_image import SamImage
from .sam_prompt import PromptEncoder
from .tiny_vit import TinyVit, TinyVitConfig

FAR = -1e4  # a logit that no threshold reaches


@dataclass(frozen=True)
class SegmentAnythingConfig:
    """Sizes of a SAM; `canvas` is the side of its square input, pixels."""

    image: SamConfig | TinyVitConfig
    decoder: DecoderConfig
    canvas: int = 1024


class SegmentAnything(nn.Module):
    """Holds the three parts; run through `SamDecoderGraph` and `image_encoder`."""

    def __init__(self, config: SegmentAnythingConfig) -> None:
        super().__init__()
        self.config = config
        width = config.decoder.width
        self.image_encoder: nn.Module = (
            TinyVit(config.image) if isinstance(config.image, TinyVitConfig) else SamImage(config.image, width)
        )
        self.prompt_encoder = PromptEncoder(width, config.canvas)
        self.mask_decoder = MaskDecoder(config.decoder)

    @property
    def grid(self) -> int:
        """Cells of the image's embedding on each side."""
        return self.config.image.grid


class SamDecoderGraph(Fixed):
    """Image embedding (1, C, g, g), points (N, P, 2), labels (N, P), valid (2,) → masks and what is known of them.

    Points are (x, y) in pixels of the canvas; `valid` is the (H, W) of the canvas that the image fills. Returns mask
    logits (N, M, 4g, 4g), predicted IoU (N, M), stability (N, M) and boxes (N, M, 4). Stability and boxes are of the
    valid cells of these small masks: the share of cells over 1 among those over -1; first and last column and row over
    0, as (left, top, right, bottom) in cells, all -1 for an empty mask.
    """

    def __init__(self, model: SegmentAnything) -> None:
        super().__init__()
        self.prompt_encoder, self.mask_decoder = model.prompt_encoder, model.mask_decoder
        self.grid, self.canvas = model.grid, model.config.canvas
        self.fp32_measures = Measures()

    def forward(self, embedding: Tensor, points: Tensor, labels: Tensor, valid: Tensor) -> tuple[Tensor, ...]:
        prompts = self.prompt_encoder(points, labels)
        positions = self.derive("positions", lambda: self.prompt_encoder.grid_positions(self.grid))
        image = to_tokens(embedding) + self.prompt_encoder.no_mask_embed.weight
        masks, iou = self.mask_decoder(image, positions, prompts, (self.grid, self.grid))
        cell = self.canvas / (4 * self.grid)
        return masks, iou, *self.fp32_measures(masks, valid / cell)


class Measures(nn.Module):
    """Logits (N, M, h, w) and the valid extent (2,), in cells → stability (N, M) and boxes (N, M, 4)."""

    def forward(self, masks: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns = (torch.arange(int(side), dtype=torch.float32) for side in masks.shape[2:])
        inside = (rows < valid[0])[:, None] & (columns < valid[1])[None]
        masks = torch.where(inside, masks, torch.full_like(inside, FAR, dtype=masks.dtype))
        over, all_ = ((masks > level).to(masks.dtype).sum(dim=(2, 3)) for level in (1.0, -1.0))
        left, right = self._ends(masks.amax(dim=2), columns)
        top, bottom = self._ends(masks.amax(dim=3), rows)
        return over / all_.clamp(min=1.0), torch.stack((left, top, right, bottom), dim=-1)

    def _ends(self, profile: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """First and last place where the profile (N, M, n) is positive; -1 and -1 if it never is."""
        on = profile > 0
        last = torch.where(on, places, places.new_full((1,), -1.0)).amax(dim=-1)
        far = float(places.shape[0])
        first = torch.where(on, places, places.new_full((1,), far)).amin(dim=-1)
        return torch.where(first < far, first, first.new_full((1,), -1.0)), last
