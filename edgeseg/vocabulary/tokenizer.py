"""CLIP's byte-pair tokenizer, from a bundle's `tokenizer.json`.

The `tokenizers` library reads the file, but the bundle may be hostile: only vocabulary and merges may vary, what
is around them must be exactly `pipeline()`, which `export/tokenizer.py` writes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from edgeseg.errors import BundleError
from edgeseg.vocabulary.cleaning import clean

Int32 = npt.NDArray[np.int32]

START, END = "<|startoftext|>", "<|endoftext|>"
FILE_LIMIT_BYTES = 16 << 20

# U+0345, a mark whose capital is a letter, is in no word: the original's matching without case drops it, too.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}\x{345}]+"


class ClipTokenizer:
    """Texts to token numbers.

    A special token spelled out in a text is ordinary text: only `inputs` places the start and the end token.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        vocab = tokenizer.get_vocab()
        self._tokenizer, self._start, self._end = tokenizer, vocab[START], vocab[END]

    @classmethod
    def open(cls, path: Path) -> ClipTokenizer:
        """Read a `tokenizer.json` whose digest has been checked. Raises BundleError."""
        asked = f"read the tokenizer {path.name}"
        try:
            return cls(_load(path))
        except (OSError, ValueError, RecursionError) as error:
            raise BundleError(asked, str(error), "make the bundle again, or get an undamaged copy") from None

    def tokenize(self, text: str) -> list[int]:
        """The token numbers of one text, with the start and the end token; at least these two."""
        ids: list[int] = self._tokenizer.encode(clean(text)).ids
        return [self._start, *ids, self._end]

    def inputs(self, rows: Sequence[Sequence[int]], width: int = 0) -> dict[str, Int32]:
        """Inputs of the graph `text` for rows of `tokenize`.

        Args:
            rows: N token rows.
            width: smallest T.

        Returns:
            tokens: (N, T) int32, zeros after each end token. eot: (N,) int32, index of the end token.
        """
        lengths = [len(row) for row in rows]
        tokens = np.zeros((len(rows), max([width, *lengths])), np.int32)
        for row, target in zip(rows, tokens, strict=True):
            target[: len(row)] = row
        return {"tokens": tokens, "eot": np.array(lengths, np.int32) - 1}

    def encode(self, texts: Sequence[str]) -> tuple[Int32, Int32]:
        """`tokens` (N, T) int32, padded with 0 to the longest text, and `eot` (N,) int32."""
        made = self.inputs([self.tokenize(text) for text in texts])
        return made["tokens"], made["eot"]


def pipeline(vocab: dict[str, int], merges: list[str]) -> dict[str, Any]:
    """The content of `tokenizer.json`.

    Args:
        vocab: token → number, bytes in the printable spelling of GPT-2; the last token of a word ends in `</w>`.
        merges: pairs of tokens, `"a b"`, the first to be merged first (the form that every `tokenizers` version reads).
    """
    words = {"type": "Split", "pattern": {"Regex": _WORDS}, "behavior": "Removed", "invert": True}
    spelled = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    model: dict[str, Any] = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": ""}
    model |= {"end_of_word_suffix": "</w>", "fuse_unk": False, "vocab": vocab, "merges": merges}
    spaces = {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, spaces, {"type": "Lowercase"}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [words, spelled]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": model,
    }


def _load(path: Path) -> Tokenizer:
    with path.open("rb") as file:
        data = file.read(FILE_LIMIT_BYTES + 1)
    if len(data) > FILE_LIMIT_BYTES:
        raise ValueError(f"it is larger than {FILE_LIMIT_BYTES} bytes")
    content = json.loads(data)
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict):
        raise ValueError("it holds no model")
    vocab = _checked_vocab(model.get("vocab"))
    if content != pipeline(vocab, _checked_merges(model.get("merges"), vocab)):
        raise ValueError("its steps are not those of CLIP's tokenizer")
    try:
        return Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"the tokenizers library refuses it ({error})") from None


def _checked_vocab(vocab: object) -> dict[str, int]:
    if not isinstance(vocab, dict) or any(type(number) is not int for number in vocab.values()):
        raise ValueError("its vocabulary is not a table of numbers")
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise ValueError("its token numbers have gaps")
    if START not in vocab or END not in vocab:
        raise ValueError(f"it lacks {START} or {END}")
    return vocab


def _checked_merges(merges: object, vocab: dict[str, int]) -> list[str]:
    if not isinstance(merges, list) or not all(isinstance(merge, str) for merge in merges):
        raise ValueError("its merges are not a list of texts")
    for merge in merges:
        left, _, right = merge.partition(" ")
        if not {left, right, left + right} <= vocab.keys():
            raise ValueError(f"the merge {merge!r} is not in its vocabulary")
    return merges
