"""USE at small sizes: what stands behind ebseg-tiny's encoders, and what its training minimises.

As in USE, both encoders stay as they were; ebseg-tiny's SAM takes DINOv2's place. The levels, their scales and the head
are trained on the labelled segments: a segment's embedding shall lie nearer to a text of its own class than to those of
the other classes. Every second segment is asked with the plain names, the others with the prompt bank.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.benches.accuracy.recall import components
from edgeseg.export import ebseg, use_taps
from edgeseg.export.nets.clip import ClipConfig
from edgeseg.export.nets.layers import resize, to_image
from edgeseg.export.nets.use import SegmentHead, TappedEncoder
from edgeseg.export.recipe import Recipe
from edgeseg.vocabulary.bank import PromptBank

from . import objective, start
from .shares import shares
from .text import embed

Size = tuple[int, int]
BANK = "camvid-11"
UNSCORED = -1


class Use(nn.Module):
    """Both networks of USE.

    Args:
        encoder: images → patches. `head`: patches and the segments' weights → embeddings.
    """

    def __init__(self, encoder: TappedEncoder, head: SegmentHead) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head


def make(recipe: Recipe, names: list[str], weights: Tensor) -> Objective:
    """The objective with its first weights, for these classes of the prompt bank; `weights` (C,) are not used."""
    texts = torch.stack([embed(recipe, names, bank) for bank in (None, PromptBank.open(BANK))])
    return Objective(tiny(recipe, load_file(start.START), texts.shape[2]), recipe, texts, weights)


def tiny(recipe: Recipe, found: Mapping[str, Tensor], embedding: int) -> Use:
    """The networks: the encoders with the weights of ebseg-tiny's state, fixed; what is trained as `drawn` has it."""
    sam, options = ebseg.sam_sizes(found), recipe.options
    clip = ClipConfig(
        width=recipe.clip_width,
        heads=recipe.clip_width // options["clip_head"],
        patch=recipe.clip_patch,
        grid=15,
        trunk=8,
        tail=0,
        surgery_start=8,
        hidden=384,
        embedding=embedding,
    )
    levels = {"levels": options["levels"], "width": options["merged"]}
    encoder = TappedEncoder(clip, sam, **levels, class_token=options["class_token"] == "add")
    head = SegmentHead(nn.Linear(options["merged"], embedding))
    mine = use_taps.drawn(encoder, head)
    encoder.load_state_dict(encoders(found) | {name: value for name, value in mine.items() if "project" not in name})
    head.load_state_dict({name: value for name, value in mine.items() if "project" in name})
    encoder.clip.requires_grad_(False)
    encoder.second.requires_grad_(False)
    return Use(encoder, head)


def encoders(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """SAM's and CLIP's image encoder out of an EBSeg's state, under the names of `TappedEncoder`; float32."""
    made = {f"second.{name}": value for name, value in start.sam(found).items()}
    for number, name, value in start.clip_blocks(found):
        renamed = name.replace("attn.qkv.", "attn.in_proj_").replace("attn.proj.", "attn.out_proj.")
        made[f"clip.resblocks.{number}.{renamed}"] = value
    return made | {f"clip.{name}": value for name, value in start.around_blocks(found)}


class Objective(objective.Objective):
    """See `objective.Objective`.

    Args:
        model: to be trained.
        recipe: gives the side of the encoders' inputs, and the temperature.
        texts: (V, C, D) unit embeddings of the trained classes under V kinds of prompts, the plain ones first; each
            kind is asked as often.
        weights: (C,) of the classes; only their number is used.
    """

    model: Use
    texts: Tensor

    def __init__(self, model: Use, recipe: Recipe, texts: Tensor, weights: Tensor) -> None:
        super().__init__(model, texts[0], weights)
        self.side = int(recipe.canvases[0][0] * recipe.options["clip_scale"])
        self.grid = (self.side // recipe.clip_patch,) * 2
        self.scale = 1 / recipe.options["temperature"]
        self.register_buffer("texts", texts, persistent=False)

    def forward(self, rgb: Tensor, labels: Tensor, valid: Size) -> Tensor:
        """See `objective.Objective`."""
        patches = self.patches(rgb, valid)
        parts = [self.segments(one) for one in labels]
        rows = torch.cat([self.model.head(patches[i : i + 1], weights) for i, (weights, _) in enumerate(parts)])
        classes = torch.cat([classes for _, classes in parts])
        kinds = torch.arange(len(rows), device=rows.device) % len(self.texts)
        logits = (rows[:, None] @ self.texts[kinds].transpose(1, 2))[:, 0] * self.scale
        return contrast(logits, classes)

    def segments(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Of labels (H, W): each segment's share of every patch (S, L), rows that sum up to 1, and its class (S,).

        A segment is what it is to `edgeseg.benches.accuracy.recall`: connected, of one class, of 100 pixels or more.
        """
        known = torch.where(labels < len(self.weights), labels, UNSCORED)
        numbers = components(known.cpu().numpy().astype(np.int32))
        first = np.unique(numbers, return_index=True)[1][int((numbers == 0).any()) :]
        inside = torch.from_numpy(numbers).to(labels.device).long() - 1
        padded = F.pad(inside, (0, self.side - inside.shape[1], 0, self.side - inside.shape[0]), value=-1)
        areas = shares(padded[None] + 1, len(first) + 1, padded.new_zeros(1, 1, *self.grid)).flatten(2)[0, 1:]
        return areas / areas.sum(dim=1, keepdim=True), known.flatten()[torch.from_numpy(first).to(labels.device)]

    def patches(self, rgb: Tensor, valid: Size) -> Tensor:
        """Merged patches (B, L, width) of a canvas that is not larger than the encoders' input, and padded to it."""
        below = (0, self.side - rgb.shape[-1], 0, self.side - rgb.shape[-2])
        sam, clip = (F.pad(image, below) for image in self.normalised(rgb, valid))
        with torch.no_grad():
            tokens = self.model.encoder.tokens(clip, sam)
        return self.model.encoder.merge(*tokens)

    def scores(self, rgb: Tensor, valid: Size, text: Tensor, overlap: Tensor) -> Tensor:
        """(B, C, H, W) cosines of `text` (C, D) where each patch is a segment; the family does not use `overlap`."""
        patches = self.patches(rgb, valid)
        alone = torch.eye(patches.shape[1], device=patches.device)
        rows = torch.stack([self.model.head(one[None], alone) for one in patches])
        canvas = resize(to_image(rows @ text.t(), self.grid), (self.side, self.side))
        return canvas[..., : rgb.shape[-2], : rgb.shape[-1]]

    def checkpoint(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Under the names that `edgeseg.export.use` reads: CLIP's own, `backbone.` as in EBSeg's files, `use.`."""
        made = {}
        for name, value in state.items():
            short = name.removeprefix("encoder.").removeprefix("head.")
            place, _, rest = short.partition(".")
            if place == "clip":
                made["visual." + rest.replace("resblocks.", "transformer.resblocks.", 1)] = value
            else:
                made[f"backbone.{rest}" if place == "second" else f"{use_taps.TRAINED}{short}"] = value
        return made


def contrast(logits: Tensor, classes: Tensor) -> Tensor:
    """Mean cross-entropy of segments against the texts of all classes.

    Rare classes weigh no more than others: what is rare in pixels, as poles are, is not in segments.

    Args:
        logits: (S, C), cosines by the temperature; without a segment the loss is 0.
        classes: (S,) each segment's own.
    """
    return F.cross_entropy(logits, classes, reduction="sum") / max(len(classes), 1)
