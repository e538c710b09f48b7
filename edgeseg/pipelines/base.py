"""What pipelines share: how an image is looked at, and what most of them do, whose classes are embeddings.

A family whose classes are something else, or whose graphs run more than once per image, brings methods of its own in
place of those of `EmbeddedClasses`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.backends.base import Array, Session
    from edgeseg.bundle import Bundle
    from edgeseg.chain import Chain, Observer
    from edgeseg.placement import Placement
    from edgeseg.schema import GraphSpec, Size
    from edgeseg.segmentation import Evidence
    from edgeseg.vocabulary import ClassList, Vocabulary
    from edgeseg.vocabulary.bank import PromptBank
    from edgeseg.vocabulary.maker import Progress

OpenSession = Callable[["GraphSpec", Path], "Session"]


@dataclass(frozen=True, eq=False)
class Look:
    """One image's run, but for the network inputs made of the image.

    Attributes:
        vocabulary: the classes.
        placement: where the image lies on the canvas. `rgb`: (H, W, 3) uint8, the image as it was read.
        top_k: see `Pipeline.vocabulary_feed`.
        settings: what the user chose, by name; a family has its own.
        observer: hears of the chain's steps.
    """

    vocabulary: Vocabulary
    placement: Placement
    rgb: Array
    top_k: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    observer: Observer | None = None


@dataclass(frozen=True, eq=False)
class Seen:
    """What was found: what the class scores are computed from, and the wall time of each graph."""

    evidence: Evidence
    timings_ms: dict[str, float]


class Maker(Protocol):
    """Makes vocabularies of class names, see `edgeseg.vocabulary.VocabularyMaker`."""

    def vocabulary(
        self,
        classes: str | ClassList | Any,
        overlap: Mapping[str, bool] | None = None,
        progress: Progress | None = None,
        bank: PromptBank | None = None,
    ) -> Vocabulary: ...

    def check(self, vocabulary: Vocabulary) -> Vocabulary: ...


class EmbeddedClasses:
    """A family whose graphs run once, with the classes' text embeddings as an input."""

    wanted: tuple[str, ...]
    by_row: tuple[str, ...] = ()
    stored: Mapping[str, tuple[str, int]] = MappingProxyType({"text": ("f", 2), "overlap": ("f", 1)})

    def image_feed(self, rgb: Array, valid: Size, canvas: Size) -> dict[str, Array]:
        """See `Pipeline`."""
        raise NotImplementedError

    def vocabulary_feed(self, embeddings: Array, overlap: Array, top_k: int | None = None) -> dict[str, Array]:
        """See `Pipeline`."""
        raise NotImplementedError

    def evidence(self, tensors: Mapping[str, Array], names: tuple[str, ...], placement: Placement) -> Evidence:
        """See `Pipeline`."""
        raise NotImplementedError

    def vocabulary_maker(self, bundle: Bundle, open_session: OpenSession) -> Maker:
        """One that encodes names with the bundle's text encoder."""
        from edgeseg.vocabulary import VocabularyMaker

        return VocabularyMaker(bundle, open_session)

    def stand_in(self, bundle: Bundle, count: int) -> Vocabulary:
        """Classes of random directions, every other one a training class."""
        import numpy as np

        from edgeseg.vocabulary import Vocabulary
        from edgeseg.vocabulary.recipe import TextRecipe

        size = (count, TextRecipe.read(bundle.manifest.recipe).dimensions)
        vectors = np.random.Generator(np.random.PCG64(count)).standard_normal(size).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return Vocabulary(tuple(f"class {i}" for i in range(count)), vectors, (np.arange(count) % 2).astype(np.float32))

    def reference_feed(self, stored: Mapping[str, Array], canvas: Size) -> dict[str, Array]:
        """The image's inputs and the classes'."""
        return self.image_feed(stored["image"], canvas, canvas) | self.vocabulary_feed(
            stored["text"], stored["overlap"]
        )

    def class_feed(self, vocabulary: Vocabulary) -> dict[str, Array]:
        """See `Pipeline`."""
        return self.vocabulary_feed(vocabulary.embeddings, vocabulary.overlap)

    def look(self, chain: Chain, image: Mapping[str, Array], look: Look) -> Seen:
        """Run the chain once. Raises InputError for settings: there are none."""
        no_settings(look)
        named = self.vocabulary_feed(look.vocabulary.embeddings, look.vocabulary.overlap, look.top_k)
        result = chain.run({**image, **named}, self.wanted, look.observer)
        return Seen(self.evidence(result.tensors, look.vocabulary.names, look.placement), result.timings_ms)


def no_settings(look: Look) -> None:
    """Raise an InputError if the user chose settings of a family that has none."""
    if look.settings:
        found = "this family has no settings"
        raise InputError(f"set {next(iter(look.settings))!r}", found, "leave --set out")
