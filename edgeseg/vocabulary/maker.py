"""Makes vocabularies with a bundle's text encoder: class names in, a `Vocabulary` out, each name encoded once.

The embedding of a class is the unit mean of the unit embeddings of its prompts: one prompt per template, and with a
prompt bank one more per template and phrase. A model with several cost channels gets such a mean for each: the plain
prompts, then one attribute of the bank each; without a bank, the plain prompts in every channel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgeseg.backends.base import Session
from edgeseg.errors import BundleError, InputError
from edgeseg.schema import PRECISIONS, GraphSpec, Manifest
from edgeseg.vocabulary.bank import PromptBank
from edgeseg.vocabulary.cache import EmbeddingCache
from edgeseg.vocabulary.classes import ClassList, class_list
from edgeseg.vocabulary.encoder import TextEncoder, TextTokenizer, extent, unit_rows
from edgeseg.vocabulary.overlap import override, training_overlap
from edgeseg.vocabulary.recipe import TextRecipe
from edgeseg.vocabulary.tokenizer import ClipTokenizer
from edgeseg.vocabulary.vocabulary import Vocabulary
from edgeseg.vocabulary.wordpiece import WordPieceTokenizer

Float32 = npt.NDArray[np.float32]
OpenSession = Callable[[GraphSpec, Path], Session]
Progress = Callable[[int, int], None]
Prompts = tuple[tuple[str, ...], ...]  # of a class: by channel

_REMAKE = "make the bundle again, or get an undamaged copy"

TOKENIZER_FILE = "tokenizer.json"
GROUP = 64  # classes encoded between two writes to the cache: what an interrupt can lose

# Kind of text encoder in a recipe → what opens its tokenizer file.
TOKENIZERS: dict[str, Callable[[Path], TextTokenizer]] = {
    "clip": ClipTokenizer.open,
    "minilm": WordPieceTokenizer.open,
    "captions": WordPieceTokenizer.open,
}


class TextBundle(Protocol):
    """What a maker needs of a `Bundle`: its manifest, and files whose digests have been checked."""

    @property
    def manifest(self) -> Manifest: ...

    def file(self, relative: str) -> Path: ...

    def graph_files(self, spec: GraphSpec, /) -> Path: ...


class VocabularyMaker:
    """Makes vocabularies for one bundle.

    Args:
        bundle: an opened bundle.
        open_session: opens the text graph, called only when a name is not in the cache; the session is closed again.
        cache: where embeddings are kept; the user's cache by default, `EmbeddingCache(None)` for none.

    Attributes:
        encoder: names the text encoder and templates; equal in all bundles of one checkpoint (and of one text encoder,
            where the checkpoint does not hold it), of any precision.
    """

    def __init__(self, bundle: TextBundle, open_session: OpenSession, cache: EmbeddingCache | None = None) -> None:
        self._bundle, self._open_session = bundle, open_session
        self._cache = EmbeddingCache.default() if cache is None else cache
        self._recipe = TextRecipe.read(bundle.manifest.recipe)
        self.encoder = self._recipe.encoder(bundle.manifest.source.sha256)

    def vocabulary(
        self,
        classes: str | Iterable[str] | ClassList,
        overlap: Mapping[str, bool] | None = None,
        progress: Progress | None = None,
        bank: PromptBank | None = None,
    ) -> Vocabulary:
        """Encode class names, or take them from the cache.

        Args:
            classes: anything that `class_list` takes.
            overlap: class name → whether the model was trained on it, where the rule of docs/vocabulary.md errs.
            progress: called with the number of names encoded so far and to be encoded, first with (0, total).
            bank: says how each class looks; the prompts hold its phrases then.

        Raises:
            InputError: a name, their number or `overlap` cannot be used.
            BundleError: the bundle has no text encoder, or a damaged one.
        """
        chosen = class_list(classes)
        self._check_count(len(chosen.names))
        flags = override(training_overlap(chosen, self._recipe.training), chosen.names, overlap or {})
        prompts = {name: self._prompts(name, bank) for name in chosen.names}
        vectors = self._embeddings(prompts, progress or _silent, bank.digest if bank else "")
        return Vocabulary(chosen.names, np.stack([vectors[name] for name in chosen.names]), flags, self.encoder)

    def check(self, vocabulary: Vocabulary) -> Vocabulary:
        """A loaded vocabulary, if it was made for this bundle's checkpoint and templates; else an InputError."""
        asked, todo = "use the vocabulary with this bundle", "make it again with `edgeseg vocab` and this bundle"
        found = vocabulary.embeddings.shape[1]
        if found != self._recipe.dimensions:
            raise InputError(asked, f"its embeddings have {found} values, not {self._recipe.dimensions}", todo)
        if vocabulary.encoder and vocabulary.encoder != self.encoder:
            raise InputError(asked, "it was made with another text encoder or other templates", todo)
        self._check_count(len(vocabulary.names))
        return vocabulary

    def _check_count(self, count: int) -> None:
        limits = [graph.axes["C"] for graph in self._bundle.manifest.graphs if "C" in graph.axes]
        low, high = max((limit[0] for limit in limits), default=1), min((limit[2] for limit in limits), default=count)
        if not low <= count <= high:
            found = f"the bundle takes {low} to {high} classes at once"
            raise InputError(f"use {count} classes", found, "change the class list, or export with another limit")

    def _prompts(self, name: str, bank: PromptBank | None) -> Prompts:
        """The prompts of each channel."""
        plain, channels = tuple(self._recipe.prompts(name)), self._recipe.channels
        if bank is None:
            return (plain,) * channels
        groups = [tuple(p for said in group for p in self._recipe.prompts(name, said)) for group in bank.groups(name)]
        if channels == 1:
            return ((*plain, *(prompt for group in groups for prompt in group)),)
        if len(groups) != channels - 1 or not all(groups):
            found = (
                f"it has {len(groups)} attributes, and the model a channel for the plain prompt and {channels - 1} more"
            )
            raise InputError(f"use the prompt bank {bank.name}", found, "choose as many with --attributes")
        return (plain, *groups)

    def _embeddings(self, prompts: Mapping[str, Prompts], progress: Progress, bank: str) -> dict[str, Float32]:
        graph = self._text_graph()
        key = self._recipe.fingerprint(*filter(None, (*self._sources(graph), bank)))
        vectors = self._cache.get(key, list(prompts), self._recipe.dimensions)
        missing = {name: said for name, said in prompts.items() if name not in vectors}
        progress(0, len(missing))
        if missing:
            for made in self._encode(graph, missing):
                self._cache.put(key, made)
                vectors |= made
                progress(len(missing) - sum(name not in vectors for name in missing), len(missing))
        return vectors

    def _encode(self, graph: GraphSpec, prompts: Mapping[str, Prompts]) -> Iterable[dict[str, Float32]]:
        """Vectors by name, in groups; names of a like length share a group, so that little is padded."""
        tokenizer = self._tokenizer()
        rows = {name: self._rows(graph, tokenizer, name, said) for name, said in prompts.items()}
        order = sorted(prompts, key=lambda name: len(rows[name][0]))
        packed = graph.file not in self._bundle.manifest.files  # then only its engine is there to be opened
        path = Path(graph.file) if packed else self._bundle.graph_files(graph)
        with closing(self._open_session(graph, path)) as session:
            encoder = TextEncoder(session, graph, tokenizer)
            for start in range(0, len(order), GROUP):
                group = order[start : start + GROUP]
                made = encoder.encode([row for name in group for row in rows[name]])
                yield dict(zip(group, self._class_means(made, [prompts[name] for name in group]), strict=True))

    def _class_means(self, encoded: Float32, prompts: Sequence[Prompts]) -> Float32:
        """Unit rows of all prompts, (N, D), to unit rows of the classes, (names, channels * D)."""
        found, wanted = encoded.shape[1], self._recipe.dimensions // self._recipe.channels
        if found != wanted:
            raise BundleError("encode class names", f"the text encoder gives {found} values, not {wanted}", _REMAKE)
        counts = [len(channel) for channels in prompts for channel in channels]
        means = np.stack([part.mean(axis=0) for part in np.split(encoded, np.cumsum(counts)[:-1])])
        return unit_rows(unit_rows(means).reshape(len(prompts), -1))

    def _rows(self, graph: GraphSpec, tokenizer: TextTokenizer, name: str, prompts: Prompts) -> list[list[int]]:
        rows = [tokenizer.tokenize(prompt) for channel in prompts for prompt in channel]
        limit, longest = min(self._recipe.context, extent(graph, 1)[2]), max(map(len, rows))
        if longest > limit:
            found = f"its prompt has {longest} tokens, and the text encoder takes {limit}"
            raise InputError(f"use the class {name!r}", found, "shorten its name")
        return rows

    def _tokenizer(self) -> TextTokenizer:
        kind = self._recipe.kind
        if kind not in TOKENIZERS:
            found = f"this version knows {', '.join(TOKENIZERS)}"
            raise BundleError(f"use a text encoder of the kind {kind!r}", found, "install a newer edgeseg")
        return TOKENIZERS[kind](self._bundle.file(TOKENIZER_FILE))

    def _text_graph(self) -> GraphSpec:
        """The most exact text graph whose file, or at least an engine of it, is in the bundle."""
        manifest = self._bundle.manifest
        graphs = [graph for graph in manifest.graphs if graph.name == "text" and self._made_from(graph)]
        if not graphs:
            found, todo = "the bundle has no text encoder", "make it where the full bundle is, and give it as a file"
            raise BundleError("make a vocabulary", found, todo)
        return min(graphs, key=lambda graph: PRECISIONS.index(graph.precision))

    def _made_from(self, graph: GraphSpec) -> set[str]:
        """Digests of the graph's file, and of the one that its engines were made from where a pack left it out."""
        manifest = self._bundle.manifest
        made = (graph.name, graph.precision, graph.canvas)
        found = {e.source_sha256 for e in manifest.engines if (e.graph, e.precision, e.canvas) == made}
        return {manifest.files[graph.file].sha256} if graph.file in manifest.files else found

    def _sources(self, graph: GraphSpec) -> list[str]:
        """Digests of all that an embedding depends on but the recipe."""
        files = self._bundle.manifest.files
        if TOKENIZER_FILE not in files:
            raise BundleError("make a vocabulary", f"the bundle does not list {TOKENIZER_FILE}", _REMAKE)
        weights = [files[path].sha256 for path in graph.data if path in files]
        return [*sorted(self._made_from(graph)), *weights, files[TOKENIZER_FILE].sha256]


def _silent(done: int, total: int) -> None:
    """No progress is shown."""
