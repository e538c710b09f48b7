"""Recipes of SAM and of what is built on it: what their files' tensors do not tell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class SamRecipe:
    """A preset of SAM by itself.

    Attributes:
        family, name, hub, licence, gate: as in `recipe.Recipe`.
        encoder_width: by which a checkpoint is recognised.
        canvas: side of the square it was trained for, pixels.
        decoder_heads: attention heads of the mask decoder.
        prompts: {"batch": prompts per run of the decoder, "points": points per prompt}.
        automatic: defaults of the automatic masks, see `edgeseg.segments.automatic.AutomaticOptions`.
    """

    family: str
    name: str
    licence: str
    encoder_width: int
    canvas: int
    decoder_heads: int
    prompts: dict[str, int]
    gate: dict[str, dict[str, float]]
    automatic: dict[str, Any] = field(default_factory=dict)
    hub: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class UseRecipe:
    """A preset of USE: what the paper leaves open, with the default that was chosen; docs/segments.md has the reasons.

    Attributes:
        family, name, hub, licence, gate: as in `recipe.Recipe`; the hub's file is CLIP's.
        clip_width, clip_patch: by which a CLIP is recognised; empty for any.
        clip_scale: CLIP's input as a fraction of SAM's canvas.
        surgery: blocks at the end of CLIP whose patches attend by their values.
        text_encoder, templates: as in `recipe.Recipe`.
        uncovered: what a pixel without a segment is: "whole", the class of the photo as one segment, or "none".
        sam: presets of SAM that may stand in front, the first one by default.
    """

    family: str
    name: str
    licence: str
    clip_scale: float
    surgery: int
    text_encoder: str
    templates: str
    uncovered: str
    sam: tuple[str, ...]
    gate: dict[str, dict[str, float]]
    clip_width: int = 0
    clip_patch: int = 0
    hub: dict[str, str] = field(default_factory=dict)
