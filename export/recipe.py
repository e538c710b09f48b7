"""Recipes: what a checkpoint's tensors do not tell, as TOML presets with strict keys."""

from __future__ import annotations

import sys
from dataclasses import MISSING, asdict, dataclass, field, fields
from importlib import resources
from typing import Any, TypeVar

from edgeseg.errors import EdgesegError, InputError
from edgeseg.schema import Size, parse_size

from .sam_recipe import SamRecipe, UseRecipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Recipe:
    """A preset.

    Attributes:
        family, name: which exporter reads it, and the preset's own name.
        hub: {"repository", "file"} of the published checkpoint; empty if there is none.
        licence: of the published weights.
        canvases: default sizes, (H, W).
        clip_width, clip_patch: by which a checkpoint is recognised.
        clip_scale: CLIP's input as a fraction of the canvas.
        decoder_heads: attention heads of pixel and mask decoder.
        ensemble: exponents alpha, beta, gamma of the scoring.
        resize: the authors' rule, see `edgeseg.placement`.
        text_encoder: kind, one of `text_encoders.KINDS`.
        templates, training_classes: names of data files of `edgeseg.data`.
        gate: thresholds per precision: worst cosine of a tensor, share of equal labels.
    """

    family: str
    name: str
    licence: str
    canvases: tuple[Size, ...]
    clip_width: int
    clip_patch: int
    clip_scale: float
    decoder_heads: int
    ensemble: dict[str, float]
    resize: dict[str, Any]
    text_encoder: str
    templates: str
    training_classes: str
    gate: dict[str, dict[str, float]]
    hub: dict[str, str] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """The recipe as JSON values."""
        return asdict(self)


AnyRecipe = Recipe | SamRecipe | UseRecipe
KINDS: dict[str, type[AnyRecipe]] = {"ebseg": Recipe, "sam": SamRecipe, "use": UseRecipe}
"""Family → the class of its presets."""

R = TypeVar("R")


def presets(kind: type[R]) -> list[R]:
    """Every preset of a class of recipes."""
    return [recipe for recipe in map(any_preset, preset_names()) if isinstance(recipe, kind)]


def preset_names() -> list[str]:
    """Every preset that ships."""
    folder = resources.files("edgeseg.export") / "recipes"
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def any_preset(name: str) -> AnyRecipe:
    """A preset of any family by name. Raises InputError for an unknown one."""
    if name not in preset_names():
        todo = f"choose from {', '.join(preset_names())}"
        raise InputError(f"use the preset {name!r}", "there is none of that name", todo)
    return parse((resources.files("edgeseg.export") / "recipes" / f"{name}.toml").read_text("utf-8"), name)


def preset(name: str) -> Recipe:
    """A preset of EBSeg by name. Raises InputError for any other."""
    found = any_preset(name)
    if not isinstance(found, Recipe):
        names = ", ".join(recipe.name for recipe in presets(Recipe))
        raise InputError(f"use the preset {name!r}", f"it is of the family {found.family}", f"choose from {names}")
    return found


def parse(text: str, name: str) -> AnyRecipe:
    """TOML as a recipe of its family; unknown and missing keys are refused."""
    values = tomllib.loads(text)
    kind = KINDS.get(values.get("family", ""), Recipe)
    known = {f.name for f in fields(kind)}
    needed = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
    unknown, missing = set(values) - known, needed - set(values)
    if unknown or missing:
        found = f"unknown keys {sorted(unknown)}, missing keys {sorted(missing)}"
        raise EdgesegError(f"read the recipe {name}", found, "mend the TOML file")
    if "canvases" in values:
        values["canvases"] = tuple(parse_size(size) for size in values["canvases"])
    return kind(**values)
