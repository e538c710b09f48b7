"""Class names as captions: their word pieces, the captions they stand in, and which token belongs to which class.

A caption reads "A picture of" and the names, one after the other. A name of several words is written without spaces, as
the released code has it ("pottedplant"); its map is made of its word pieces' maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgeseg.errors import BundleError, InputError
from edgeseg.vocabulary.classes import ClassList, class_list
from edgeseg.vocabulary.maker import TOKENIZER_FILE, TOKENIZERS, Progress
from edgeseg.vocabulary.tokenizer_file import padded
from edgeseg.vocabulary.vocabulary import Vocabulary

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle
    from edgeseg.vocabulary.bank import PromptBank

Pieces = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Words(Vocabulary):
    """Classes as their word pieces. The embeddings are placeholders of one value: this family has none.

    Attributes:
        pieces: name → its token numbers.
        frame: token numbers before the names and after them, the start and end tokens among them.
    """

    pieces: Mapping[str, Pieces] = field(default_factory=dict)
    frame: tuple[Pieces, Pieces] = ((), ())

    def save(self, path: Path) -> None:
        """Refused: there is nothing that took time to make. Raises InputError."""
        found = "this family reads names as they are, so there is nothing to keep"
        raise InputError(f"write the vocabulary {path}", found, "give the names to `edgeseg run`")


class WordMaker:
    """Makes `Words` with a bundle's tokenizer.

    Args:
        bundle: an opened bundle.

    Raises:
        BundleError: its recipe or its tokenizer is damaged.
    """

    encoder = ""

    def __init__(self, bundle: Bundle) -> None:
        recipe = bundle.manifest.recipe
        caption, start = recipe.get("caption"), recipe.get("start_token")
        if not isinstance(caption, str) or type(start) is not int:
            found = "it does not say how a caption begins"
            raise BundleError("read the bundle's recipe", found, "make the bundle again with this version of edgeseg")
        self._tokenizer = TOKENIZERS["captions"](bundle.file(TOKENIZER_FILE))
        *before, end = self._tokenizer.tokenize(caption)
        self._frame = (start, *before[1:]), (end,)

    def vocabulary(
        self,
        classes: str | Iterable[str] | ClassList,
        overlap: Mapping[str, bool] | None = None,
        progress: Progress | None = None,
        bank: PromptBank | None = None,
    ) -> Words:
        """Class names as word pieces; nothing is encoded, and `overlap` means nothing here. Raises InputError."""
        if bank is not None:
            found = "this family reads the names alone, in captions of its own"
            raise InputError(f"use the prompt bank {bank.name}", found, "leave --bank out")
        names = class_list(classes).names
        pieces = {name: self._pieces(name) for name in names}
        if progress is not None:
            progress(0, 0)
        ones = np.ones((len(names), 1), np.float32)
        return Words(names, ones, np.zeros(len(names), np.float32), pieces=pieces, frame=self._frame)

    def check(self, vocabulary: Vocabulary) -> Words:
        """The same classes as this bundle's word pieces."""
        return self.vocabulary(vocabulary.names)

    def _pieces(self, name: str) -> Pieces:
        pieces = tuple(self._tokenizer.tokenize("".join(name.split()))[1:-1])
        if not pieces:
            raise InputError(f"use the class {name!r}", "no word is left of it in a caption", "write it in letters")
        return pieces


@dataclass(frozen=True, eq=False)
class Captions:
    """B captions of up to T tokens over C classes.

    Attributes:
        ids: (B, T) int32. `mask`: (B, T) int32, 1 where a caption has a token.
        pieces: (B, C, T) float32, the weight of each token in a class's map.
    """

    ids: npt.NDArray[np.int32]
    mask: npt.NDArray[np.int32]
    pieces: npt.NDArray[np.float32]

    def feed(self) -> dict[str, npt.NDArray[Any]]:
        """The graphs' inputs."""
        return {"input_ids": self.ids, "attn_mask": self.mask, "pieces": self.pieces}


def captions(words: Words, names: Sequence[str], limit: int, last: str = "sum") -> Captions:
    """Captions that hold these classes, in order, as many in each as fit.

    Args:
        words: the pieces.
        names: C names among them.
        limit: most tokens of a caption.
        last: see `Settings`.

    Raises:
        InputError: a name alone does not fit.
    """
    groups = _packed([len(words.pieces[name]) for name in names], limit - sum(map(len, words.frame)), names)
    before, after = words.frame
    rows = [[*before, *(piece for i in group for piece in words.pieces[names[i]]), *after] for group in groups]
    ids, lengths = padded(rows)
    weights = np.zeros((len(rows), len(names), ids.shape[1]), np.float32)
    for row, group in zip(weights, groups, strict=True):
        place = len(before)
        for i in group:
            count = len(words.pieces[names[i]])
            undivided = last == "sum" and len(groups) == 1 and i == group[-1]
            row[i, place : place + count] = 1.0 if undivided else 1.0 / count
            place += count
    mask = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int32)
    return Captions(ids, mask, weights)


def _packed(counts: Sequence[int], room: int, names: Sequence[str]) -> list[list[int]]:
    groups: list[list[int]] = []
    left = 0
    for i, count in enumerate(counts):
        if count > room:
            found = f"it has {count} word pieces, and a caption has room for {max(room, 0)}"
            raise InputError(f"use the class {names[i]!r}", found, "shorten its name, or allow longer captions")
        if count > left:
            groups.append([])
            left = room
        groups[-1].append(i)
        left -= count
    return groups


def filtered(
    words: Words, probability: Callable[[Captions], npt.NDArray[np.float32]], limit: int, least: float, *, batch: int
) -> list[int]:
    """Indices of the classes that the image matches: "A picture of" the class alone has this probability at least.

    Args:
        words: the classes.
        probability: captions → probability of "match" of each.
        limit: most tokens of a caption.
        least: see above; where no class reaches it, the best one is taken.
        batch: most captions at once.
    """
    order = sorted(range(len(words.names)), key=lambda i: len(words.pieces[words.names[i]]))
    found = np.zeros(len(order), np.float32)
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        found[part] = probability(_alone(words, [words.names[i] for i in part], limit))
    kept = np.flatnonzero(found >= least)
    return list(map(int, kept)) if len(kept) else [int(found.argmax())]


def _alone(words: Words, names: Sequence[str], limit: int) -> Captions:
    """One caption per class."""
    each = [captions(words, [name], limit) for name in names]
    width = max(one.ids.shape[1] for one in each)
    ids, mask = np.zeros((len(each), width), np.int32), np.zeros((len(each), width), np.int32)
    for row, one in enumerate(each):
        ids[row, : one.ids.shape[1]], mask[row, : one.ids.shape[1]] = one.ids[0], one.mask[0]
    return Captions(ids, mask, np.zeros((len(each), 1, width), np.float32))
