"""CAT-Seg (Cho et al., CVPR 2024) and LMSeg (Tang et al., 2024), which is CAT-Seg on CLIP and SAM features together.

F = w F_clip + (1 - w) F_sam. The names of CAT-Seg's parameters are those of its published files (cvlab-kaist/CAT-Seg);
LMSeg was never released, so `sam.*` (SAM's own names) and `fusion.*` are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .aggregation import Aggregation, AggregationConfig
from .clip import ClipConfig
from .dense_clip import SplitClip
from .fixed import Fixed
from .layers import resize, to_image, to_tokens, unit
from .sam import SamConfig, SamEncoder

WEIGHTS = ("scalar", "channel", "generated")


@dataclass(frozen=True)
class FusionConfig:
    """How SAM's features join CLIP's.

    Attributes:
        clip, sam: widths of the two features.
        weight: one of `WEIGHTS`: one number, one per channel, or one per position, made from both features.
        adapter: a linear layer and a norm bring SAM's features to CLIP's width; without, the widths must be equal.
        unit: both features are brought to unit length first.
    """

    clip: int = 512
    sam: int = 768
    weight: str = "scalar"
    adapter: bool = True
    unit: bool = False


@dataclass(frozen=True)
class LMSegConfig:
    """All sizes of one model; without `sam` and `fusion` it is CAT-Seg.

    Attributes:
        taps: blocks of CLIP, from 0, whose outputs guide the decoder.
        text: width, heads, depth, context and words of the text tower; None where the checkpoint has none.
        appearance: what guides the aggregation's attention over space: "fused" features or those of "clip".
    """

    clip: ClipConfig = field(default_factory=lambda: ClipConfig(trunk=12))
    taps: tuple[int, int] = (3, 7)
    text: tuple[int, int, int, int, int] | None = (512, 8, 12, 77, 49408)
    aggregation: AggregationConfig = field(default_factory=AggregationConfig)
    sam: SamConfig | None = None
    fusion: FusionConfig | None = None
    appearance: str = "fused"


class LMSeg(nn.Module):
    """The whole model; without `sam` its state dict has exactly the keys of a published CAT-Seg file."""

    def __init__(self, config: LMSegConfig) -> None:
        super().__init__()
        self.config = config
        self.sem_seg_head = nn.Module()
        predictor: Any = nn.Module()
        self.sem_seg_head.predictor = predictor
        predictor.clip_model = SplitClip(config.clip, config.taps, config.text)
        predictor.transformer = Aggregation(config.aggregation)
        self.upsample1 = nn.ConvTranspose2d(config.clip.width, config.aggregation.early, kernel_size=2, stride=2)
        self.upsample2 = nn.ConvTranspose2d(config.clip.width, config.aggregation.late, kernel_size=4, stride=4)
        if config.sam is not None and config.fusion is not None:
            self.sam = SamEncoder(config.sam)
            self.fusion = Fusion(config.fusion)

    @property
    def clip(self) -> SplitClip:
        """Both of CLIP's towers."""
        predictor: Any = self.sem_seg_head.predictor
        model: SplitClip = predictor.clip_model
        return model

    @property
    def aggregation(self) -> Aggregation:
        """From features and text to logits."""
        predictor: Any = self.sem_seg_head.predictor
        model: Aggregation = predictor.transformer
        return model


class Fusion(Fixed):
    """F_clip (B, L, D) and F_sam (B, L, S) → w F_clip + (1 - w) F_sam, (B, L, D), with w between 0 and 1."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        self.adapter = nn.Sequential(nn.Linear(config.sam, config.clip), nn.LayerNorm(config.clip))
        if not config.adapter:
            self.adapter = nn.Sequential()
        if config.weight == "generated":
            self.generator = nn.Linear(2 * config.clip, 1)
        else:
            self.weight = nn.Parameter(torch.zeros(() if config.weight == "scalar" else (config.clip,)))

    def forward(self, clip: Tensor, sam: Tensor) -> Tensor:
        sam = self.adapter(sam)
        if self.config.unit:
            clip, sam = unit(clip), unit(sam)
        w = self.share(clip, sam)
        return w * clip + (1 - w) * sam

    def share(self, clip: Tensor, sam: Tensor) -> Tensor:
        """W, of a shape that broadcasts over (B, L, D)."""
        if self.config.weight == "generated":
            return torch.sigmoid(self.generator(torch.cat((clip, sam), dim=-1)))
        return self.derive("share", lambda: torch.sigmoid(self.weight))


class ClipGraph(nn.Module):
    """Image (B, 3, S, S) → features (B, L, D), guidance_2 (B, ·, 2h, 2w) and guidance_4 (B, ·, 4h, 4w)."""

    def __init__(self, model: LMSeg) -> None:
        super().__init__()
        self.visual, self.upsample1, self.upsample2 = model.clip.visual, model.upsample1, model.upsample2

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        patch = self.visual.config.patch
        grid = int(image.shape[-2]) // patch, int(image.shape[-1]) // patch
        features, early, late = self.visual(image)
        return features, self.upsample1(to_image(early, grid)), self.upsample2(to_image(late, grid))


class SamGraph(nn.Module):
    """Image (B, 3, S, S), SAM-normalised → tokens of the last block on CLIP's grid, (B, L, width)."""

    def __init__(self, model: LMSeg) -> None:
        super().__init__()
        self.sam, self.grid = model.sam, model.config.aggregation.swin.grid

    def forward(self, image: Tensor) -> Tensor:
        patch = self.sam.config.patch
        grid = int(image.shape[-2]) // patch, int(image.shape[-1]) // patch
        tokens: Tensor = self.sam(image)[-1]
        return to_tokens(resize(to_image(tokens, grid), (self.grid, self.grid)))


class Rank(nn.Module):
    """Which classes the aggregation sees: those most similar to some position of the image.

    text (C, P * D) unit rows; slots (S,), of which only the length counts; shared (1,): 0, each view has classes of its
    own, as CAT-Seg does above 256; 1, all views have those that are best in any. Gives the class numbers, ascending,
    picked (B, S) int32, and their text (B, S, P, D).
    """

    def __init__(self, prompts: int) -> None:
        super().__init__()
        self.prompts = prompts

    def forward(self, features: Tensor, text: Tensor, slots: Tensor, shared: Tensor) -> tuple[Tensor, Tensor]:
        prompts = text.reshape(text.shape[0], self.prompts, -1)
        if self.prompts > 1:
            prompts = unit(prompts)
        cosines = unit(features) @ prompts.mean(dim=1).t()
        best = cosines.amax(dim=1)
        best = best + shared * (best.amax(dim=0, keepdim=True) - best)
        found = best.topk(slots.shape[0], dim=1).indices.to(text.dtype)
        # Ascending, so that the order tells nothing of rounding.
        picked = -(-found).topk(slots.shape[0], dim=1).values
        rows = picked.to(torch.int64)
        return rows.to(torch.int32), prompts[rows]


class FusedRank(nn.Module):
    """The same on fused features, which it also gives: clip_features, sam_features, ... → features, picked, text."""

    def __init__(self, model: LMSeg) -> None:
        super().__init__()
        self.fusion, self.rank = model.fusion, Rank(model.config.aggregation.prompts)

    def forward(
        self, clip: Tensor, sam: Tensor, text: Tensor, slots: Tensor, shared: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        features = self.fusion(clip, sam)
        return (features, *self.rank(features, text, slots, shared))


class AggregateGraph(nn.Module):
    """The aggregation; with a fifth input, other features than those of the cost guide its attention over space.

    `parts`: see `Aggregation`.
    """

    def __init__(self, model: LMSeg, parts: int) -> None:
        super().__init__()
        self.aggregation, self.parts = model.aggregation, parts

    def forward(self, features: Tensor, early: Tensor, late: Tensor, text: Tensor, *appearance: Tensor) -> Tensor:
        self.aggregation.parts = self.parts
        return self.aggregation(features, early, late, text, *appearance)
