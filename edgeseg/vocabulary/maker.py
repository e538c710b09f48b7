"""Makes vocabularies with a bundle's text encoder: class names in, a `Vocabulary` out, each name encoded once.

The embedding of a class is the unit mean of the unit embeddings of its prompts, one prompt per template.
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

_REMAKE = "make the bundle again, or get an undamaged copy"

TOKENIZER_FILE = "tokenizer.json"
GROUP = 64  # classes encoded between two writes to the cache: what an interrupt can lose

# Kind of text encoder in a recipe → what opens its tokenizer file.
TOKENIZERS: dict[str, Callable[[Path], TextTokenizer]] = {
    "clip": ClipTokenizer.open,
    "minilm": WordPieceTokenizer.open,
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
        digests = bundle.manifest.source.sha256, self._recipe.weights
        self.encoder = self._recipe.fingerprint(*filter(None, digests))

    def vocabulary(
        self,
        classes: str | Iterable[str] | ClassList,
        overlap: Mapping[str, bool] | None = None,
        progress: Progress | None = None,
    ) -> Vocabulary:
        """Encode class names, or take them from the cache.

        Args:
            classes: anything that `class_list` takes.
            overlap: class name → whether the model was trained on it, where the rule of docs/vocabulary.md errs.
            progress: called with the number of names encoded so far and to be encoded, first with (0, total).

        Raises:
            InputError: a name, their number or `overlap` cannot be used.
            BundleError: the bundle has no text encoder, or a damaged one.
        """
        chosen = class_list(classes)
        self._check_count(len(chosen.names))
        flags = override(training_overlap(chosen, self._recipe.training), chosen.names, overlap or {})
        vectors = self._embeddings(chosen.names, progress or _silent)
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

    def _embeddings(self, names: Sequence[str], progress: Progress) -> dict[str, Float32]:
        graph = self._text_graph()
        key = self._recipe.fingerprint(*self._sources(graph))
        vectors = self._cache.get(key, names, self._recipe.dimensions)
        missing = [name for name in names if name not in vectors]
        progress(0, len(missing))
        if missing:
            for made in self._encode(graph, missing):
                self._cache.put(key, made)
                vectors |= made
                progress(len(missing) - sum(name not in vectors for name in missing), len(missing))
        return vectors

    def _encode(self, graph: GraphSpec, names: Sequence[str]) -> Iterable[dict[str, Float32]]:
        """Vectors by name, in groups; names of a like length share a group, so that little is padded."""
        tokenizer = self._tokenizer()
        rows = {name: self._rows(graph, tokenizer, name) for name in names}
        order = sorted(names, key=lambda name: len(rows[name][0]))
        packed = graph.file not in self._bundle.manifest.files  # then only its engine is there to be opened
        path = Path(graph.file) if packed else self._bundle.graph_files(graph)
        with closing(self._open_session(graph, path)) as session:
            encoder = TextEncoder(session, graph, tokenizer)
            for start in range(0, len(order), GROUP):
                group = order[start : start + GROUP]
                made = encoder.encode([row for name in group for row in rows[name]])
                yield dict(zip(group, self._class_means(made), strict=True))

    def _class_means(self, prompts: Float32) -> Float32:
        """(names * templates, D) unit rows to (names, D) unit rows."""
        found, wanted = prompts.shape[1], self._recipe.dimensions
        if found != wanted:
            raise BundleError("encode class names", f"the text encoder gives {found} values, not {wanted}", _REMAKE)
        return unit_rows(prompts.reshape(-1, len(self._recipe.templates), wanted).mean(axis=1))

    def _rows(self, graph: GraphSpec, tokenizer: TextTokenizer, name: str) -> list[list[int]]:
        rows = [tokenizer.tokenize(prompt) for prompt in self._recipe.prompts(name)]
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
