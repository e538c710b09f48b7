"""LMSeg at small sizes: the network to train, started from ebseg-tiny's encoders, and what its training minimises.

As in LMSeg, SAM's encoder stays as it was. CLIP's is trained on, all of it: its last block gave EBSeg nothing but
mask tokens, and the dense features that LMSeg reads must be learnt (CAT-Seg, whose CLIP has them, trains queries and
values alone). So the cosines are supervised too, which also decide what is rejected early. Every second image is asked
with the plain prompts, the others with those of the prompt bank.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.export.lmseg import CLIP, PAD_LENGTH
from edgeseg.export.nets.aggregation import AggregationConfig
from edgeseg.export.nets.clip import ClipConfig
from edgeseg.export.nets.layers import resize, to_image, to_tokens, unit
from edgeseg.export.nets.lmseg import FusionConfig, LMSeg, LMSegConfig
from edgeseg.export.nets.sam import SamConfig
from edgeseg.export.nets.swin import SwinConfig
from edgeseg.export.recipe import Recipe
from edgeseg.vocabulary.bank import PromptBank

from . import objective, start
from .shares import cross_entropy, shares
from .text import embed

Size = tuple[int, int]
BANK = "camvid-11"
PATCH = 16
SCALE = 20.0  # of the cosines, in the auxiliary loss
AUXILIARY = 0.5
RARE = -2.0  # a class is absent from most pixels: where the logits start


def tiny(recipe: Recipe, embedding: int) -> LMSegConfig:
    """The sizes of lmseg-tiny: ebseg-tiny's encoders, all of CLIP's eight blocks, and a quarter of CAT-Seg's widths."""
    head, side, sam = recipe.options["clip_head"], recipe.options["side"], recipe.options["sam"]
    early, late = recipe.options["taps"]
    return LMSegConfig(
        clip=ClipConfig(
            width=recipe.clip_width,
            heads=recipe.clip_width // head,
            patch=recipe.clip_patch,
            grid=15,
            trunk=8,
            hidden=384,
            embedding=embedding,
        ),
        taps=(early, late),
        text=None,
        aggregation=AggregationConfig(
            embedding=embedding,
            swin=SwinConfig(width=32, guidance=32, hidden=128, grid=side // recipe.clip_patch, window=12, heads=1),
            class_hidden=128,
            text_guidance=32,
            early=64,
            late=32,
            decoder=(32, 16),
            decoder_guidance=(16, 16),
            pad_length=PAD_LENGTH,
        ),
        sam=SamConfig(width=128, depth=8, heads=4, patch=PATCH, grid=30, window=6, taps=(1, 3, 5, 7), hidden=384),
        fusion=FusionConfig(embedding, 128, sam["weight"], adapter=True, unit=sam["unit"]),
    )


def make(recipe: Recipe, names: list[str], weights: Tensor) -> Objective:
    """The objective with its first weights, for these classes of the prompt bank and their weights (C,) in the loss."""
    texts = torch.stack([embed(recipe, names, bank) for bank in (None, PromptBank.open(BANK))])
    model = LMSeg(tiny(recipe, embedding=texts.shape[2]))
    initialise(model, load_file(start.START))
    return Objective(model, recipe, texts, weights)


def initialise(model: LMSeg, ebseg: Mapping[str, Tensor]) -> None:
    """First weights: the encoders' from ebseg-tiny's state, the others from torch's global generator."""
    for name, parameter in model.named_parameters():
        if parameter.ndim <= 1:
            nn.init.constant_(parameter, 1.0 if name.endswith("weight") and parameter.ndim else 0.0)
        elif parameter.ndim == 4:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu")
        elif name.endswith("weight"):
            nn.init.xavier_uniform_(parameter)
        else:
            nn.init.trunc_normal_(parameter, std=0.02)
    nn.init.constant_(model.aggregation.head.bias, RARE)
    found = encoders(ebseg)
    missing = model.load_state_dict(found, strict=False).missing_keys
    left = [name for name in missing if name.startswith((f"{CLIP}.visual.", "sam."))]
    if left:
        raise SystemExit(f"ebseg-tiny's weights lack what becomes {', '.join(left)}")
    model.sam.requires_grad_(False)


def encoders(ebseg: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """SAM's and CLIP's image encoder out of an EBSeg's state, under the names of LMSeg's; float32.

    Each block's q, k and v become tensors of their own.
    """
    visual, made = f"{CLIP}.visual", {f"sam.{name}": value for name, value in start.sam(ebseg).items()}
    for number, name, value in start.clip_blocks(ebseg):
        named = _split(name, value)
        made |= {f"{visual}.transformer.resblocks.{number}.{key}": part for key, part in named.items()}
    return made | {f"{visual}.{name}": value for name, value in start.around_blocks(ebseg)}


def _split(name: str, value: Tensor) -> dict[str, Tensor]:
    """A parameter of a block, whichever of CLIP's two ways to name them; packed weights as three."""
    if name in ("attn.qkv.weight", "attn.in_proj_weight"):
        return {f"attn.{letter}_proj_weight": part for letter, part in zip("qkv", value.chunk(3), strict=True)}
    if name == "attn.qkv.bias":
        return {"attn.in_proj_bias": value}
    return {name.replace("attn.proj.", "attn.out_proj."): value}


class Objective(objective.Objective):
    """See `objective.Objective`.

    Args:
        model: to be trained.
        recipe: gives the sides of the encoders' inputs.
        texts: (V, C, D) unit embeddings of the trained classes under V kinds of prompts, the plain ones first; each
            kind is asked as often.
        weights: (C,) weight of each class in the loss.
    """

    model: LMSeg
    texts: Tensor

    def __init__(self, model: LMSeg, recipe: Recipe, texts: Tensor, weights: Tensor) -> None:
        super().__init__(model, texts[0], weights)
        self.options = recipe.options
        self.register_buffer("texts", texts, persistent=False)

    def forward(self, rgb: Tensor, labels: Tensor, valid: Size) -> Tensor:
        """See `objective.Objective`."""
        kinds = torch.arange(len(rgb), device=rgb.device) % len(self.texts)
        logits, cosines = self.predict(rgb, valid, self.texts[kinds])
        fine = shares(labels, len(self.weights), logits)
        known = fine.sum(dim=1, keepdim=True)
        weights = self.weights[:, None, None]
        pixels = F.binary_cross_entropy_with_logits(logits, fine, weights * known, reduction="sum") / known.sum()
        coarse = shares(labels, len(self.weights), cosines)
        return pixels + AUXILIARY * cross_entropy((SCALE * cosines).log_softmax(dim=1), coarse, self.weights)

    def predict(self, rgb: Tensor, valid: Size, text: Tensor) -> tuple[Tensor, Tensor]:
        """One pass: logits (B, C, 4h, 4w) and the cosines (B, C, h, w) of what `text` (B, C, D) names."""
        model, grid = self.model, (self.model.config.aggregation.swin.grid,) * 2
        sides = self.options["sam"]["side"], self.options["side"]
        to_sam, to_clip = (resize(x, (side, side)) for x, side in zip(self.normalised(rgb, valid), sides, strict=True))
        clip, early, late = model.clip.visual(to_clip)
        with torch.no_grad():
            patches = to_sam.shape[-2] // PATCH, to_sam.shape[-1] // PATCH
            sam = to_tokens(resize(to_image(model.sam(to_sam)[-1], patches), grid))
        features = model.fusion(clip, sam)
        maps = model.upsample1(to_image(early, grid)), model.upsample2(to_image(late, grid))
        cosines = unit(features) @ text.transpose(1, 2)
        return model.aggregation(features, *maps, text[:, :, None]), to_image(cosines, grid)

    def scores(self, rgb: Tensor, valid: Size, text: Tensor, overlap: Tensor) -> Tensor:
        """(B, C, H, W) logits of `text` (C, D) on the canvas of `rgb`; the family makes no use of `overlap`."""
        logits, _ = self.predict(rgb, valid, text.expand(len(rgb), -1, -1))
        return resize(logits, (rgb.shape[-2], rgb.shape[-1]))
