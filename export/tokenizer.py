"""Tokenizers as a bundle's `tokenizer.json`: CLIP's, from the table of merges inside the open_clip package, and BERT's.

open_clip itself is not imported (it would load torch and torchvision for one text file).
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeseg.errors import CheckpointError, EdgesegError
from edgeseg.vocabulary import wordpiece
from edgeseg.vocabulary.tokenizer import END, START, pipeline
from edgeseg.vocabulary.tokenizer_file import checked_vocab

BPE_FILE = "bpe_simple_vocab_16e6.txt.gz"
TOKENS = 49408
_MERGES = TOKENS - 2 * 256 - 2

VOCABULARIES = ("tokenizer.json", "vocab.txt")  # where a published BERT has its vocabulary; the first tells more


def tokenizer_json() -> str:
    """The content of a bundle's `tokenizer.json`. Raises EdgesegError where open_clip is not installed."""
    merges = read_merges(_find_bpe_file())
    spellings = byte_spellings()
    last = [spelling + "</w>" for spelling in spellings]
    tokens = [*spellings, *last, *(merge.replace(" ", "") for merge in merges), START, END]
    vocab = {token: number for number, token in enumerate(tokens)}
    return _text(pipeline(vocab, merges))


def wordpiece_json(path: Path, more: Sequence[str] = ()) -> tuple[str, int]:
    """The content of a bundle's `tokenizer.json` for a BERT without case, and how many tokens it has.

    Args:
        path: its vocabulary, a `vocab.txt` with one token a line or a `tokenizer.json`.
        more: tokens that a model appended to it.

    Raises:
        CheckpointError: the file is damaged, or is that of another kind of tokenizer.
    """
    try:
        text = path.read_bytes().decode("utf-8")
        vocab = _published_vocab(text) if path.suffix == ".json" else _listed_vocab(text)
        vocab |= {token: len(vocab) + i for i, token in enumerate(more)}
        checked_vocab(vocab, wordpiece.START, wordpiece.END, wordpiece.UNKNOWN)
    except (OSError, ValueError, RecursionError) as error:
        todo = "take it from where the weights come from, or download it again"
        raise CheckpointError(f"read the vocabulary {path}", str(error), todo) from None
    return _text(wordpiece.pipeline(vocab)), len(vocab)


def _listed_vocab(text: str) -> dict[str, int]:
    lines = text.removesuffix("\n").split("\n")
    return {line.removesuffix("\r"): number for number, line in enumerate(lines)}


def _published_vocab(text: str) -> dict[str, int]:
    """The vocabulary inside a file of the tokenizers library, if the steps around it are BERT's without case."""
    content = json.loads(text)
    model = content.get("model") if isinstance(content, dict) else None
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocab, dict):
        raise ValueError("it holds no vocabulary")
    wanted = wordpiece.pipeline(vocab)
    # Without a word on accents, BERT's normaliser strips them where it puts letters in lower case.
    steps = content.get("normalizer") in (wanted["normalizer"], wanted["normalizer"] | {"strip_accents": None})
    if not steps or content.get("pre_tokenizer") != wanted["pre_tokenizer"] or model != wanted["model"]:
        raise ValueError("its steps are not those of BERT's tokenizer without case")
    return vocab


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n"


def byte_spellings() -> list[str]:
    """The 256 byte values as printable characters, in the order of their token numbers.

    Printable Latin-1 stands for itself and comes first; the other bytes follow as the characters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = 256 - len(printable)
    return [chr(code) for code in printable] + [chr(0x100 + index) for index in range(others)]


def read_merges(path: Path) -> list[str]:
    """The pairs `"a b"` of CLIP's table, the first to be merged first; the file holds more than CLIP uses."""
    try:
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise _refused(f"{path.name} is damaged ({error})") from None
    merges = lines[1 : _MERGES + 1]
    if len(merges) != _MERGES or any(len(merge.split(" ")) != 2 for merge in merges):
        raise _refused(f"{path.name} does not hold {_MERGES} pairs")
    return merges


def _find_bpe_file() -> Path:
    spec = importlib.util.find_spec("open_clip")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / BPE_FILE).is_file():
            return path
    raise _refused("the package open_clip, which carries CLIP's table of merges, is not installed")


def _refused(found: str) -> EdgesegError:
    return EdgesegError("make the tokenizer", found, 'run: pip install "edgeseg[host]"')
