"""What every kind of tokenizer shares: reading a bundle's `tokenizer.json`, and token rows as one array.

The `tokenizers` library reads the file, but the bundle may be hostile: only tables of tokens may vary, what is around
them must be exactly what `export/tokenizer.py` writes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from edgeseg.errors import BundleError

Int32 = npt.NDArray[np.int32]

FILE_LIMIT_BYTES = 16 << 20


def open_tokenizer(path: Path, remake: Callable[[dict[str, Any]], dict[str, Any]]) -> Tokenizer:
    """Read a `tokenizer.json` whose digest has been checked.

    Args:
        path: the file.
        remake: the only content that may stand around the tables of the file's `model`, once these are checked; raises
            ValueError where they are wrong.

    Raises:
        BundleError: the file cannot be read, or is another.
    """
    try:
        return _load(path, remake)
    except (OSError, ValueError, RecursionError) as error:
        todo = "make the bundle again, or get an undamaged copy"
        raise BundleError(f"read the tokenizer {path.name}", str(error), todo) from None


def _load(path: Path, remake: Callable[[dict[str, Any]], dict[str, Any]]) -> Tokenizer:
    with path.open("rb") as file:
        data = file.read(FILE_LIMIT_BYTES + 1)
    if len(data) > FILE_LIMIT_BYTES:
        raise ValueError(f"it is larger than {FILE_LIMIT_BYTES} bytes")
    content = json.loads(data)
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict):
        raise ValueError("it holds no model")
    if content != remake(model):
        raise ValueError("its steps are not those of this kind of tokenizer")
    try:
        return Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"the tokenizers library refuses it ({error})") from None


def checked_vocab(vocab: object, *special: str) -> dict[str, int]:
    """A file's table of token numbers, 0 up to its length, with the special tokens in it. Raises ValueError."""
    if not isinstance(vocab, dict) or any(type(number) is not int for number in vocab.values()):
        raise ValueError("its vocabulary is not a table of numbers")
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise ValueError("its token numbers have gaps")
    if lacking := [token for token in special if token not in vocab]:
        raise ValueError(f"it lacks {' and '.join(lacking)}")
    return vocab


def padded(rows: Sequence[Sequence[int]], width: int = 0) -> tuple[Int32, Int32]:
    """Token rows as one array.

    Returns:
        tokens: (N, T) int32, zeros after each row; T is the longest row, at least `width`.
        lengths: (N,) int32.
    """
    lengths = [len(row) for row in rows]
    tokens = np.zeros((len(rows), max([width, *lengths])), np.int32)
    for row, target in zip(rows, tokens, strict=True):
        target[: len(row)] = row
    return tokens, np.array(lengths, np.int32)
