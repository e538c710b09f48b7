"""CLIP's byte-pair tokenizer, from a bundle's `tokenizer.json`, of which only vocabulary and merges may vary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from edgeseg.vocabulary.cleaning import clean
from edgeseg.vocabulary.tokenizer_file import Int32, checked_vocab, open_tokenizer, padded

START, END = "<|startoftext|>", "<|endoftext|>"

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
        return cls(open_tokenizer(path, _remake))

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
        tokens, lengths = padded(rows, width)
        return {"tokens": tokens, "eot": lengths - 1}

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


def _remake(model: dict[str, Any]) -> dict[str, Any]:
    vocab = checked_vocab(model.get("vocab"), START, END)
    return pipeline(vocab, _checked_merges(model.get("merges"), vocab))


def _checked_merges(merges: object, vocab: dict[str, int]) -> list[str]:
    if not isinstance(merges, list) or not all(isinstance(merge, str) for merge in merges):
        raise ValueError("its merges are not a list of texts")
    for merge in merges:
        left, _, right = merge.partition(" ")
        if not {left, right, left + right} <= vocab.keys():
            raise ValueError(f"the merge {merge!r} is not in its vocabulary")
    return merges
