"""A vocabulary: class names with their text embeddings, and its file format (`.npz`, docs/vocabulary.md).

A vocabulary file may come from anyone, so it is checked as a hostile one: no pickles, sizes before any allocation,
every value before use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeseg.atomic import atomic_write
from edgeseg.bundle.arrays import read_made
from edgeseg.errors import InputError
from edgeseg.vocabulary.classes import check_names
from edgeseg.vocabulary.overlap import override

Float32 = npt.NDArray[np.float32]

UNIT_TOLERANCE = 1e-3

_MEMBERS = {"names": ("U", 1), "embeddings": ("f", 2), "overlap": ("f", 1), "encoder": ("U", 0)}  # dtype kinds, axes
_VERB = "edgeseg vocab"
_TODO = f"make it again with `{_VERB}`"


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Classes as the engines take them. The arrays cannot be written to.

    Attributes:
        names: C class names, unique.
        embeddings: (C, D) float32, unit rows.
        overlap: (C,) float32; 1 for a class that the model was trained on, 0 for a new one.
        encoder: 64 hex digits that name the text encoder and templates it was made with; "" if unknown.
    """

    names: tuple[str, ...]
    embeddings: Float32
    overlap: Float32
    encoder: str = ""

    def __post_init__(self) -> None:
        asked = "use the vocabulary"
        object.__setattr__(self, "names", check_names(self.names, asked))
        found = _array_problem(len(self.names), self.embeddings, self.overlap)
        if not re.fullmatch("([0-9a-f]{64})?", self.encoder):
            found = "its encoder is not 64 hex digits"
        if found:
            raise InputError(asked, found, _TODO)
        for name in ("embeddings", "overlap"):
            array = np.array(getattr(self, name))
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def with_overlap(self, choices: Mapping[str, bool]) -> Vocabulary:
        """The same vocabulary with some classes declared training classes (True) or new ones (False)."""
        return replace(self, overlap=override(self.overlap, self.names, choices))

    def save(self, path: Path) -> None:
        """Write the file; an existing one is replaced only once the new one is complete. Raises StorageError."""
        names, encoder = np.array(self.names), np.array(self.encoder)
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez(file, names=names, embeddings=self.embeddings, overlap=self.overlap, encoder=encoder)

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read what `save` wrote; an `InputError` names what is wrong with any other file."""
        asked = f"read the vocabulary {path}"
        arrays = read_made(path, asked, _MEMBERS, _VERB)
        try:
            names = tuple(map(str, arrays["names"]))
            return cls(names, arrays["embeddings"], arrays["overlap"], str(arrays["encoder"]))
        except InputError as error:
            raise InputError(asked, error.found, _TODO) from None


def _array_problem(count: int, embeddings: object, overlap: object) -> str | None:
    """What is wrong with the arrays of a vocabulary of `count` classes, or None."""
    for name, array, ndim in (("embeddings", embeddings, 2), ("overlap", overlap, 1)):
        if not isinstance(array, np.ndarray) or array.dtype != np.float32:
            return f"its {name} are not float32"
        if array.ndim != ndim or len(array) != count:
            return f"its {name} have the shape {array.shape} for {count} classes"
    assert isinstance(embeddings, np.ndarray)
    assert isinstance(overlap, np.ndarray)
    if not np.isin(overlap, (0, 1)).all():
        return "its overlap has values other than 0 and 1"
    lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1)  # in float32 a huge value would overflow
    if not np.allclose(lengths, 1, rtol=0, atol=UNIT_TOLERANCE):  # NaN and infinity fail too
        return "its embeddings are not all finite and of length 1"
    return None
