"""EBSeg (Shan et al., CVPR 2024; slonetime/EBSeg): the networks together under the published names, and its graphs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .clip import ClipConfig, ClipTail, ClipText, ClipTrunk
from .fixed import Fixed
from .mask_decoder import MaskDecoder
from .pixel_decoder import LEVELS, ClipFusion, DecoderConfig, PixelDecoder
from .sam import SamConfig, SamEncoder

Size = tuple[int, int]


@dataclass(frozen=True)
class TextConfig:
    """Sizes of CLIP's text tower."""

    width: int = 512
    heads: int = 8
    depth: int = 12
    context: int = 77
    words: int = 49408


@dataclass(frozen=True)
class Ensemble:
    """Exponents of the classifiers: alpha (trained classes) and beta (new ones) for D, gamma for B, the rest for A."""

    alpha: float = 0.09
    beta: float = 0.3
    gamma: float = 0.7


@dataclass(frozen=True)
class EBSegConfig:
    """All sizes of one EBSeg; `text` is None where the text encoder is not part of the checkpoint."""

    sam: SamConfig = field(default_factory=SamConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    text: TextConfig | None = field(default_factory=TextConfig)
    ensemble: Ensemble = field(default_factory=Ensemble)


class EBSeg(nn.Module):
    """The whole model; its state dict has exactly the keys of a published file, without what inference never reads."""

    def __init__(self, config: EBSegConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = SamEncoder(config.sam)
        self.clip_visual_extractor = ClipTrunk(config.clip)
        self.sem_seg_head = Head(config.decoder)
        self.clip_rec_head = ClipTail(config.clip)
        self.ov_classifier = _text(config)


def _text(config: EBSegConfig) -> nn.Module:
    text = config.text
    if text is None:
        return Background(config.clip.embedding)
    sizes = text.width, text.heads, text.depth, text.context, text.words
    return ClipText(*sizes, embedding=config.clip.embedding)


class Background(nn.Module):
    """What remains of the classifier when the text encoder lives elsewhere: background embedding and logit scale."""

    def __init__(self, embedding: int) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.bg_embed = nn.Parameter(torch.zeros(1, embedding))


class Head(nn.Module):
    """Fusion, pixel decoder and mask decoder."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.clip_fusion_layers = nn.ModuleList(ClipFusion(config) for _ in range(LEVELS))
        self.pixel_decoder = PixelDecoder(config)
        self.predictor = MaskDecoder(config)

    def forward(
        self, sam: tuple[Tensor, ...], clip: tuple[Tensor, ...], grids: tuple[Size, Size]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`sam`: four (B, N, C) on `grids[0]`; `clip`: three (B, L, C) on `grids[1]`; gives what MaskDecoder gives."""
        features, maps = self.pixel_decoder(sam, clip, self.clip_fusion_layers, grids)
        return self.predictor(features, maps, grids[1])


class HeadGraph(nn.Module):
    """The head with the inputs of the exported graph: four SAM maps, two CLIP maps, CLIP's last tokens."""

    def __init__(self, head: Head, grids: tuple[Size, Size]) -> None:
        super().__init__()
        self.head, self.grids = head, grids

    def forward(self, *maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        *early, tokens = maps
        split = len(early) - (LEVELS - 1)
        return self.head(tuple(early[:split]), (*early[split:], tokens[:, 1:]), self.grids)


class TailGraph(nn.Module):
    """The tail with its grid fixed."""

    def __init__(self, tail: ClipTail, grid: Size) -> None:
        super().__init__()
        self.tail, self.grid = tail, grid

    def forward(self, tokens: Tensor, surgery: Tensor, bias: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        return self.tail(tokens, surgery, bias, masks, self.grid)


class Score(Fixed):
    """Embeddings A, B, D (B, Q, D), unit class embeddings (C, D), trained flags (C,) → probabilities (B, Q, C).

    A geometric mean of three softmaxes over the classes, whose exponents depend on whether a class was trained, times
    the probability that the query is an object at all (EBSeg.py, inference branch). Runs in fp32: 1e-8 is below half
    precision.
    """

    def __init__(self, model: EBSeg) -> None:
        super().__init__()
        self.classifier: Any = model.ov_classifier
        self.ensemble = model.config.ensemble

    def forward(self, a: Tensor, b: Tensor, d: Tensor, text: Tensor, overlap: Tensor) -> Tensor:
        scale = self.derive("scale", lambda: self.classifier.logit_scale.exp())
        background = self.derive("background", lambda: F.normalize(self.classifier.bg_embed, dim=-1).t() * scale)
        weights = (text * scale).t()
        logits_a = a @ weights
        exponents = self._exponents(overlap)
        joint = logits_a.softmax(-1) ** exponents[0] * (d @ weights).softmax(-1) ** exponents[1]
        joint = joint * (b @ weights).softmax(-1) ** exponents[2]
        nothing = torch.cat((logits_a, a @ background), dim=-1).softmax(-1)[..., -1:]
        probabilities = (1e-8 + joint).log().softmax(-1) * (1 - nothing) + 1e-8
        # The authors take the logarithm, append the background and renormalise.
        return probabilities / (probabilities.sum(-1, keepdim=True) + nothing + 1e-8)

    def _exponents(self, overlap: Tensor) -> tuple[Tensor, Tensor, Tensor | float]:
        e = self.ensemble
        # Written as the authors write it: 1 - 0.3 - 0.7 is 5.6e-17, not 0, and a power of zero tells the two apart.
        trained, new = 1 - e.alpha - e.gamma, 1 - e.beta - e.gamma
        return overlap * trained + (1 - overlap) * new, overlap * e.alpha + (1 - overlap) * e.beta, e.gamma
