"""Which classes the model was trained on. EBSeg weighs its embeddings differently for these and for new ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgeseg.errors import InputError
from edgeseg.vocabulary.classes import ClassList

Float32 = npt.NDArray[np.float32]


def training_overlap(classes: ClassList, training: Iterable[str]) -> Float32:
    """1 for a class of which any synonym equals, character for character, any training string; else 0.

    Returns:
        (C,) float32, 0 or 1.
    """
    known = frozenset(training)
    return np.array([not known.isdisjoint(synonyms) for synonyms in classes.synonyms], np.float32)


def override(overlap: Float32, names: Sequence[str], choices: Mapping[str, bool]) -> Float32:
    """A copy of `overlap` (C,) with the named classes set; an `InputError` for a name that is none of `names`."""
    result = overlap.copy()
    for name, trained in choices.items():
        if name not in names:
            found = f"{name!r} is none of the {len(names)} classes"
            raise InputError("override which classes are training classes", found, "spell it as in the class list")
        if trained not in (True, False):
            found = f"{name!r} is set to {trained!r}"
            raise InputError("override which classes are training classes", found, "give True or False")
        result[names.index(name)] = trained
    return result
