"""BERT's tokenizer without case, from a bundle's `tokenizer.json`, of which only the vocabulary may vary.

A text is cleaned of control characters, put in lower case and stripped of accents, split at spaces, punctuation and
around each Chinese character; a word becomes the longest pieces of the vocabulary, `##` before all but the first, or
`[UNK]` (Devlin et al. 2019; Wu et al. 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from edgeseg.vocabulary.tokenizer_file import Int32, checked_vocab, open_tokenizer, padded

START, END, UNKNOWN = "[CLS]", "[SEP]", "[UNK]"
PREFIX = "##"
WORD_LIMIT = 100  # a word of more characters is unknown


class WordPieceTokenizer:
    """Texts to token numbers.

    A special token spelled out in a text is ordinary text: only `tokenize` places the start and the end token.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        vocab = tokenizer.get_vocab()
        self._tokenizer, self._start, self._end = tokenizer, vocab[START], vocab[END]

    @classmethod
    def open(cls, path: Path) -> WordPieceTokenizer:
        """Read a `tokenizer.json` whose digest has been checked. Raises BundleError."""
        return cls(open_tokenizer(path, _remake))

    def tokenize(self, text: str) -> list[int]:
        """The token numbers of one text, with the start and the end token; at least these two."""
        ids: list[int] = self._tokenizer.encode(text).ids
        return [self._start, *ids, self._end]

    def inputs(self, rows: Sequence[Sequence[int]], width: int = 0) -> dict[str, Int32]:
        """Inputs of the graph `text` for rows of `tokenize`.

        Args:
            rows: N token rows.
            width: smallest T.

        Returns:
            tokens: (N, T) int32, zeros after each end token. length: (N,) int32, tokens of each row.
        """
        tokens, lengths = padded(rows, width)
        return {"tokens": tokens, "length": lengths}


def pipeline(vocab: dict[str, int]) -> dict[str, Any]:
    """The content of `tokenizer.json` for a vocabulary, token → number, of any size."""
    model = {"type": "WordPiece", "unk_token": UNKNOWN, "continuing_subword_prefix": PREFIX}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": True,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None,
        "decoder": {"type": "WordPiece", "prefix": PREFIX, "cleanup": True},
        "model": {**model, "max_input_chars_per_word": WORD_LIMIT, "vocab": vocab},
    }


def _remake(model: dict[str, Any]) -> dict[str, Any]:
    return pipeline(checked_vocab(model.get("vocab"), START, END, UNKNOWN))
