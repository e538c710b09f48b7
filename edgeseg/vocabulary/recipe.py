"""The recipe fields that a vocabulary needs, checked: a recipe comes from a bundle and is plain JSON until then."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeseg.errors import BundleError


@dataclass(frozen=True)
class TextRecipe:
    """How class names become embeddings.

    Attributes:
        kind: kind of the text encoder ("clip", "minilm").
        templates: prompts, each with one `{}` for the class name.
        training: strings that name what the model was trained on.
        context: most tokens of a prompt.
        dimensions: D of an embedding.
        channels: prompts of a class that have a cost channel of their own; a row holds their embeddings one after the
            other.
        first: only what is before the first ", " of a name is prompted, as CAT-Seg does.
        weights: sha256 of the text encoder's own file; "" where the checkpoint holds it.
    """

    kind: str
    templates: tuple[str, ...]
    training: tuple[str, ...]
    context: int
    dimensions: int
    weights: str = ""
    channels: int = 1
    first: bool = False

    @classmethod
    def read(cls, recipe: Mapping[str, Any]) -> TextRecipe:
        """Take the fields from a bundle's recipe. Raises BundleError."""
        templates = _strings(recipe, "templates")
        if not templates or any(template.count("{}") != 1 for template in templates):
            raise _refuse("templates", "not every template has one {} for the class name")
        kind = recipe.get("text_encoder")
        if not isinstance(kind, str):
            raise _refuse("text_encoder", "it is not a text")
        training = _strings(recipe, "training_classes")
        # A bundle without a text encoder has no context; its vocabularies come as files.
        counts = _count(recipe, "text_context", least=0), _count(recipe, "embedding")
        channels = _count(recipe, "prompts") if "prompts" in recipe else 1
        if counts[1] % channels:
            raise _refuse("prompts", f"it is {channels}, which does not divide the embedding's {counts[1]} values")
        first = recipe.get("names") == "first"
        return cls(kind, templates, training, *counts, _weights(recipe), channels=channels, first=first)

    def encoder(self, checkpoint: str) -> str:
        """Names the text encoder and templates, for vocabularies and segments. `checkpoint`: sha256 of its file."""
        return self.fingerprint(*filter(None, (checkpoint, self.weights)))

    def prompts(self, name: str, phrase: str = "") -> list[str]:
        """One prompt per template, a phrase behind the name. A `{}` in the name itself stays as it is."""
        said = f"{name.split(', ')[0] if self.first else name} {phrase}".strip()
        return [template.replace("{}", said) for template in self.templates]

    def fingerprint(self, *parts: str) -> str:
        """64 hex digits of what an embedding depends on: kind, templates, context and the given digests."""
        said = ["first"] * self.first + [f"{self.channels} channels"] * (self.channels > 1)
        content = json.dumps([self.kind, self.templates, self.context, self.dimensions, *parts, *said])
        return hashlib.sha256(content.encode()).hexdigest()


def _strings(recipe: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = recipe.get(key)
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise _refuse(key, "it is not a list of texts")
    return tuple(value)


def _count(recipe: Mapping[str, Any], key: str, least: int = 1) -> int:
    value = recipe.get(key)
    if type(value) is not int or not least <= value <= 1 << 16:
        raise _refuse(key, f"it is {value!r}, not a count")
    return value


def _weights(recipe: Mapping[str, Any]) -> str:
    source = recipe.get("text_source")
    if source is None:
        return ""
    digest = source.get("sha256") if isinstance(source, Mapping) else None
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise _refuse("text_source", "it states no sha256")
    return digest


def _refuse(key: str, found: str) -> BundleError:
    return BundleError(f"read {key} of the bundle's recipe", found, "make the bundle again")
