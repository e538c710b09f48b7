"""Runs a bundle's text encoder: prompts in, one embedding per prompt out.

Prompts are batched by length and padded only to the longest of the batch. That is exact: CLIP's text tower is causal,
so that what follows the end token cannot change it, and MiniLM masks what is not the text's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgeseg.backends.base import Session
from edgeseg.errors import BackendError, BundleError
from edgeseg.schema import GraphSpec

Float32 = npt.NDArray[np.float32]

OUTPUT = "text_embedding"


class TextTokenizer(Protocol):
    """What turns prompts into the inputs of one kind of text encoder."""

    def tokenize(self, text: str) -> list[int]:
        """Token numbers of one prompt, special tokens included."""
        ...

    def inputs(self, rows: Sequence[Sequence[int]], width: int = 0) -> dict[str, Any]:
        """Graph inputs by name for N token rows, padded to the longest of them, at least to `width`."""
        ...


class TextEncoder:
    """A text encoder's graph in a session.

    Args:
        session: an open session of `graph`.
        graph: the graph `text`; its first input is [N, T], N and T named in `axes` or fixed.
        tokenizer: of the bundle; made the rows that `encode` takes.
    """

    def __init__(self, session: Session, graph: GraphSpec, tokenizer: TextTokenizer) -> None:
        self._session, self._tokenizer = session, tokenizer
        self._rows_min, self._rows, _ = extent(graph, 0)
        self._width_min, _, _ = extent(graph, 1)

    def encode(self, rows: Sequence[Sequence[int]]) -> Float32:
        """Embeddings of token rows, none longer than the graph takes.

        Returns:
            (N, D) float32, unit rows, in the order of the token rows.

        Raises:
            BackendError: the engine gives no usable numbers.
        """
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        parts = [order[start : start + self._rows] for start in range(0, len(order), self._rows)]
        made = np.concatenate([self._run([rows[index] for index in part]) for part in parts])
        result = np.empty_like(made)
        result[order] = made
        return unit_rows(result)

    def _run(self, rows: list[Sequence[int]]) -> Float32:
        padded = rows + [rows[-1]] * (self._rows_min - len(rows))
        inputs = self._tokenizer.inputs(padded, self._width_min)
        tensors = {name: self._session.upload(array) for name, array in inputs.items()}
        output = self._session.download(self._session.run(tensors)[OUTPUT])
        if output.ndim != 2 or len(output) != len(padded) or not np.isfinite(output).all():
            found = f"the engine gave {output.shape} with {np.isfinite(output).mean():.0%} finite numbers"
            raise BackendError("encode class names", found, "check the engine with `edgeseg verify`")
        return np.asarray(output[: len(rows)], np.float32)


def unit_rows(rows: Float32) -> Float32:
    """(N, D) float32 rows divided by their lengths."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def extent(graph: GraphSpec, axis: int) -> tuple[int, int, int]:
    """(smallest, usual, largest) extent of an axis of the graph's first input. Raises BundleError."""
    try:
        size = graph.inputs[0].shape[axis]
        return (size, size, size) if isinstance(size, int) else graph.axes[size]
    except (IndexError, KeyError):
        found = "its first input has no [N, T] axes with their extents"
        raise BundleError(f"use the text encoder {graph.file}", found, "make the bundle again") from None
