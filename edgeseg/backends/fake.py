"""A backend for tests, yours too: runs no engine and gives outputs that depend only on the graph's specification.

The outputs are the right names, dtypes and shapes, with values from a generator seeded by graph and tensor name. To say
what a graph gives, pass `outputs`:

    backend = FakeBackend(outputs={"head": lambda inputs: {"mask_logits": ...}})
    session = backend.open(path, graph)
    backend.calls            # [("head", {"image": (1, 3, 64, 64)}), ...] of every session

Feeds are checked as by a real backend. Nothing is read from the engine file.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.backends.base import Array, Probe, Stream, Tensor
from edgeseg.backends.feed import check_feed
from edgeseg.backends.host import HostStream, HostTensors
from edgeseg.errors import BackendError
from edgeseg.schema import GraphSpec, TensorSpec

Outputs = Mapping[str, Callable[[Mapping[str, Any]], dict[str, Array]]]


class FakeBackend:
    """See the module's text.

    Args:
        outputs: graph name → function from its inputs to its outputs, instead of the generated ones.
        works: what `probe` says.

    Attributes:
        calls: graph name and input shapes of every run, in order.
    """

    name = "fake"

    def __init__(self, outputs: Outputs | None = None, works: bool = True) -> None:
        self.outputs = dict(outputs or {})
        self.works = works
        self.calls: list[tuple[str, dict[str, tuple[int, ...]]]] = []

    def probe(self, device: int = 0) -> Probe:
        """What `works` said."""
        why = "a fake for tests" if self.works else "it was told not to work"
        return Probe(self.works, "fake" if self.works else None, why)

    def open(self, engine: Path | None, graph: GraphSpec, device: int = 0) -> FakeSession:
        """A session; the engine file is not read."""
        return FakeSession(self, graph)

    def streams(self, count: int, device: int = 0) -> list[Stream]:
        """`count` streams that do nothing."""
        return [HostStream() for _ in range(count)]


class FakeSession(HostTensors):
    """A session of `FakeBackend`."""

    def __init__(self, backend: FakeBackend, graph: GraphSpec) -> None:
        self._backend, self._graph = backend, graph
        self._open = True

    def run(self, inputs: Mapping[str, Tensor], stream: Stream | None = None) -> dict[str, Any]:
        """Deterministic outputs of the specified shapes. Raises BackendError for a feed that does not fit."""
        if not self._open:
            raise BackendError(f"run the graph {self._graph.name}", "the session is closed", "open it again")
        extents = check_feed(self._graph, inputs)
        self._backend.calls.append((self._graph.name, {name: tuple(t.shape) for name, t in inputs.items()}))
        if self._graph.name in self._backend.outputs:
            return dict(self._backend.outputs[self._graph.name](inputs))
        return {spec.name: self._made(spec, extents) for spec in self._graph.outputs}

    def close(self) -> None:
        """Every later run is refused."""
        self._open = False

    def _made(self, spec: TensorSpec, extents: Mapping[str, int]) -> Array:
        shape = tuple(extents.get(axis, 1) if isinstance(axis, str) else axis for axis in spec.shape)
        seed = zlib.crc32(f"{self._graph.name}/{spec.name}".encode())
        return np.random.default_rng(seed).random(shape).astype(spec.dtype)
