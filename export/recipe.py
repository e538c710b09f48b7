"""Recipes: what a checkpoint's tensors do not tell, as TOML presets with strict keys."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields
from importlib import resources
from typing import Any

from edgeseg.errors import EdgesegError, InputError
from edgeseg.schema import Size, parse_size

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Family → the keys of its recipes' table `options`.
OPTIONS = {
    "ebseg": {"clip_scale", "decoder_heads", "ensemble"},
    "lmseg": {"side", "taps", "clip_head", "pooling", "names", "prompts", "sam"},
    "pnp-ovss": {"layer", "head", "seed", "caption"},
    "sam": {"decoder_heads", "prompting", "automatic"},
    "use": {"clip_scale", "clip_head", "surgery", "uncovered", "sam"}
    | {"second", "levels", "merged", "class_token", "temperature"},
}


@dataclass(frozen=True)
class Recipe:
    """A preset.

    Attributes:
        family, name: which exporter reads it, and the preset's own name.
        hub: {"repository", "file"} of the published checkpoint, or {"page", "file"} where it is to be fetched by hand;
            empty if there is none.
        options: what only this family knows, see its export module; the keys are those of `OPTIONS`.
        licence: of the published weights.
        canvases: default sizes, (H, W).
        clip_width, clip_patch: by which a checkpoint is recognised; SAM's where there is no CLIP, 0 for any.
        resize: the authors' rule, see `edgeseg.placement`.
        text_encoder: kind, one of `text_encoders.KINDS`.
        templates, training_classes: names of data files of `edgeseg.data`; empty for a family that needs none.
        gate: thresholds per precision: worst cosine of a tensor, share of equal labels.
    """

    family: str
    name: str
    licence: str
    canvases: tuple[Size, ...]
    clip_width: int
    clip_patch: int
    resize: dict[str, Any]
    text_encoder: str
    templates: str
    training_classes: str
    gate: dict[str, dict[str, float]]
    options: dict[str, Any]
    hub: dict[str, str] = field(default_factory=dict)


def preset_names() -> list[str]:
    """Every preset that ships."""
    folder = resources.files("edgeseg.export") / "recipes"
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def preset(name: str) -> Recipe:
    """A preset by name. Raises InputError for an unknown one."""
    if name not in preset_names():
        todo = f"choose from {', '.join(preset_names())}"
        raise InputError(f"use the preset {name!r}", "there is none of that name", todo)
    return parse((resources.files("edgeseg.export") / "recipes" / f"{name}.toml").read_text("utf-8"), name)


def parse(text: str, name: str) -> Recipe:
    """TOML as a recipe; unknown and missing keys are refused."""
    values = tomllib.loads(text)
    known = {f.name for f in fields(Recipe)}
    unknown, missing = set(values) - known, known - set(values) - {"hub"}
    options, wanted = set(values.get("options", {})), OPTIONS.get(values.get("family", ""), set())
    unknown, missing = unknown | (options - wanted), missing | (wanted - options)
    if unknown or missing:
        found = f"unknown keys {sorted(unknown)}, missing keys {sorted(missing)}"
        raise EdgesegError(f"read the recipe {name}", found, "mend the TOML file")
    values["canvases"] = tuple(parse_size(size) for size in values["canvases"])
    return Recipe(**values)
