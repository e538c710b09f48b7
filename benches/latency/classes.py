"""The classes of a measurement: those that were named, or as many as are wanted that stand in for real ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeseg.bundle import Bundle
from edgeseg.errors import InputError
from edgeseg.vocabulary import Vocabulary
from edgeseg.vocabulary.recipe import TextRecipe

USUAL = 150


def stand_in(bundle: Bundle, count: int) -> Vocabulary:
    """`count` classes of random directions, the same each time; no text encoder runs.

    The graphs take as long as with real names. How long the label map takes depends a little on the masks and scores.
    """
    size = (count, TextRecipe.read(bundle.manifest.recipe).dimensions)
    vectors = np.random.Generator(np.random.PCG64(count)).standard_normal(size).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Vocabulary(tuple(f"class {i}" for i in range(count)), vectors, (np.arange(count) % 2).astype(np.float32))


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
