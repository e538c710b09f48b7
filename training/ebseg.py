"""EBSeg at small sizes: the network to train, its first weights, and what its training minimises.

The published model starts from trained encoders. This one starts from nothing, on a few hundred photographs, so both
encoders are also supervised directly, by classifiers that are thrown away (SAM) or that inference has anyway (CLIP's
surgery features against the class embeddings). The queries are supervised twice: by the final scores of every pixel,
and by mask classification with matching (`matching`). Pixels alone were tried: most queries became copies of each
other, and no query was left for a rare class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.export.ebseg import clip_input
from edgeseg.export.nets.clip import ClipConfig
from edgeseg.export.nets.ebseg import EBSeg, EBSegConfig, Ensemble, Score
from edgeseg.export.nets.layers import unit
from edgeseg.export.nets.pixel_decoder import DecoderConfig, DeformableAttention
from edgeseg.export.nets.sam import SamConfig
from edgeseg.export.recipe import Recipe

from . import objective
from .matching import matching_loss
from .shares import cross_entropy, shares
from .text import embed

Size = tuple[int, int]
PATCH = 16
MASK_STRIDE = 4
SCALE = 20.0  # 1 / temperature of the class scores, at the start
AUXILIARY = 0.5


def tiny(recipe: Recipe, embedding: int) -> EBSegConfig:
    """The sizes of ebseg-tiny: every module of EBSeg, 3.6 million parameters with embeddings of 384."""
    return EBSegConfig(
        sam=SamConfig(width=128, depth=8, heads=4, patch=PATCH, grid=30, window=6, taps=(1, 3, 5, 7), hidden=384),
        clip=ClipConfig(
            width=recipe.clip_width,
            heads=4,
            patch=recipe.clip_patch,
            grid=15,
            trunk=6,
            tail=2,
            surgery_start=2,
            hidden=384,
            embedding=embedding,
        ),
        decoder=DecoderConfig(
            inputs=128,
            clip=recipe.clip_width,
            width=64,
            heads=recipe.options["decoder_heads"],
            points=4,
            encoder_layers=2,
            encoder_hidden=256,
            decoder_layers=3,
            decoder_hidden=256,
            queries=32,
            embedding=embedding,
            bias_heads=4,
        ),
        text=None,
        ensemble=Ensemble(**recipe.options["ensemble"]),
    )


def make(recipe: Recipe, names: list[str], weights: Tensor) -> Objective:
    """The objective with its first weights, for these classes and their weights (C,) in the loss."""
    text = embed(recipe, names)
    model = EBSeg(tiny(recipe, embedding=text.shape[1]))
    initialise(model)
    return Objective(model, recipe, text, weights)


def initialise(model: EBSeg) -> None:
    """First weights, from torch's global generator: what each module's paper uses, where it matters."""
    for name, parameter in model.named_parameters():
        if parameter.ndim <= 1:
            nn.init.constant_(parameter, 1.0 if name.endswith("weight") else 0.0)
        elif parameter.ndim == 4:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu" if parameter.shape[-1] == 3 else "linear")
        elif name.endswith("weight") and not any(part in name for part in ("query", "level_embed")):
            nn.init.xavier_uniform_(parameter)
        else:
            nn.init.trunc_normal_(parameter, std=0.02)
    decoder = model.sem_seg_head.predictor
    nn.init.normal_(decoder.query_feat.weight)
    nn.init.normal_(decoder.query_embed.weight)
    nn.init.ones_(decoder.logit_scale)
    nn.init.ones_(decoder.bias_scaling.weight)
    nn.init.constant_(model.ov_classifier.logit_scale, math.log(SCALE))
    for module in model.modules():
        if isinstance(module, DeformableAttention):
            _point_outwards(module)


def _point_outwards(attention: DeformableAttention) -> None:
    """Sampling points start on a star, head by head, further out point by point (Zhu et al. 2021, section A.2)."""
    nn.init.zeros_(attention.sampling_offsets.weight)
    nn.init.zeros_(attention.attention_weights.weight)
    angles = torch.arange(attention.heads) * (2 * math.pi / attention.heads)
    star = torch.stack((angles.cos(), angles.sin()), dim=-1)
    star = star / star.abs().amax(dim=-1, keepdim=True)
    steps = torch.arange(1, attention.points + 1)[:, None]
    levels = attention.sampling_offsets.out_features // (2 * attention.heads * attention.points)
    offsets = (star[:, None, None] * steps).expand(-1, levels, -1, -1)
    with torch.no_grad():
        attention.sampling_offsets.bias.copy_(offsets.reshape(-1))


@dataclass(frozen=True)
class Prediction:
    """What one pass gives.

    Attributes:
        masks: (B, Q, H/4, W/4) logits.
        classes: (B, Q, C) final probabilities.
        logits_a: (B, Q, C + 1) of embedding A, the background last; logits_b, logits_d: (B, Q, C) of the others.
        clip: (B, C, h, w) logits of CLIP's surgery features.
        sam: (B, C, H/4, W/4) logits of the classifier that only training has.
    """

    masks: Tensor
    classes: Tensor
    logits_a: Tensor
    logits_b: Tensor
    logits_d: Tensor
    clip: Tensor
    sam: Tensor


class Objective(objective.Objective):
    """See `objective.Objective`; the recipe gives the scale of CLIP's input."""

    model: EBSeg

    def __init__(self, model: EBSeg, recipe: Recipe, text: Tensor, weights: Tensor) -> None:
        super().__init__(model, text, weights)
        self.recipe = recipe
        self.score = Score(model)
        self.sam_classifier = nn.Linear(model.config.sam.width, len(text) * (PATCH // MASK_STRIDE) ** 2)

    def forward(self, rgb: Tensor, labels: Tensor, valid: Size) -> Tensor:
        """See `objective.Objective`."""
        made = self.predict(rgb, valid, self.text, torch.ones_like(self.weights))
        fine, coarse = (shares(labels, len(self.text), cells) for cells in (made.masks, made.clip))
        pixels = cross_entropy(mixture(made.masks, made.classes), fine, self.weights)
        encoders = cross_entropy(made.clip.log_softmax(dim=1), coarse, self.weights)
        encoders = encoders + cross_entropy(made.sam.log_softmax(dim=1), fine, self.weights)
        return pixels + AUXILIARY * encoders + matching_loss(made, fine)

    def predict(self, rgb: Tensor, valid: Size, text: Tensor, overlap: Tensor) -> Prediction:
        """One pass for any classes; arguments as of `scores`."""
        size = int(rgb.shape[-2]), int(rgb.shape[-1])
        to_sam, to_clip = self.normalised(rgb, valid)
        ratio = self.recipe.options["clip_scale"]
        if ratio != 1:
            to_clip = F.interpolate(to_clip, scale_factor=ratio, mode="bilinear")
        model, clip_size = self.model, clip_input(size, ratio)
        grid = clip_size[0] // self.recipe.clip_patch, clip_size[1] // self.recipe.clip_patch
        sam_grid = size[0] // PATCH, size[1] // PATCH
        sam = model.backbone(to_sam)
        *taps, tokens, surgery = model.clip_visual_extractor(to_clip)
        masks, a, bias = model.sem_seg_head(sam, (*taps, tokens[:, 1:]), (sam_grid, grid))
        b, d = model.clip_rec_head(tokens, surgery, bias, masks, grid)
        scale = model.ov_classifier.logit_scale.exp()
        scaled, background = (text * scale).t(), unit(model.ov_classifier.bg_embed).t() * scale
        dense = unit(model.clip_rec_head.ln_post(surgery[:, 1:]) @ model.clip_rec_head.proj) @ scaled
        from_sam = self.sam_classifier(sam[-1]).transpose(1, 2).unflatten(2, sam_grid)
        return Prediction(
            masks,
            self.score(a, b, d, text, overlap),
            torch.cat((a @ scaled, a @ background), dim=-1),
            b @ scaled,
            d @ scaled,
            dense.transpose(1, 2).unflatten(2, grid),
            F.pixel_shuffle(from_sam, PATCH // MASK_STRIDE),
        )

    def scores(self, rgb: Tensor, valid: Size, text: Tensor, overlap: Tensor) -> Tensor:
        """(B, C, H, W) on the canvas of `rgb`, as the runtime composes them."""
        made = self.predict(rgb, valid, text, overlap)
        masks = F.interpolate(made.masks, size=rgb.shape[-2:], mode="bilinear").sigmoid()
        return torch.einsum("bqc,bqhw->bchw", made.classes, masks)


def mixture(masks: Tensor, classes: Tensor) -> Tensor:
    """Log of the share of each class, (B, C, h, w), in the sum over queries of class_probs times sigmoid(masks)."""
    scores = torch.einsum("bqc,bqhw->bchw", classes, masks.sigmoid()) + 1e-6
    return scores.log() - scores.sum(dim=1, keepdim=True).log()


def class_weights(pixels: Tensor) -> Tensor:
    """(C,) pixel counts → weights: inverse square root of the frequency, at most 6, of mean 1 over all pixels."""
    share = pixels.double() / pixels.sum()
    weights = (share.mean() / share.clamp(min=1e-12)).sqrt().clamp(max=6.0)
    return (weights / (weights * share).sum()).float()
