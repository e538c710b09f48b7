"""The classes of a measurement: those that were named, or as many as are wanted that stand in for real ones."""

from __future__ import annotations

from dataclasses import replace

from edgeseg.bundle import Bundle
from edgeseg.errors import InputError
from edgeseg.pipelines import get_pipeline
from edgeseg.vocabulary import Vocabulary

USUAL = 150


def stand_in(bundle: Bundle, count: int) -> Vocabulary:
    """`count` classes that stand in for real ones, the same each time; no text encoder runs.

    The graphs take as long as with real names. How long the label map takes depends a little on the masks and scores.
    """
    return get_pipeline(bundle.manifest).stand_in(bundle, count)


def first(vocabulary: Vocabulary, count: int) -> Vocabulary:
    """Its first `count` classes. Raises InputError if it has fewer."""
    if count > len(vocabulary.names):
        found = f"{len(vocabulary.names)} are named"
        raise InputError(f"measure with {count} classes", found, "name more of them, or none, which takes stand-ins")
    return replace(
        vocabulary,
        names=vocabulary.names[:count],
        embeddings=vocabulary.embeddings[:count],
        overlap=vocabulary.overlap[:count],
    )
