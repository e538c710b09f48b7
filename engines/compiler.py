"""The seam between a build and the SDK that does it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edgeseg.schema import GraphSpec

from .progress import Advance


@dataclass(frozen=True)
class Job:
    """One graph to compile.

    Attributes:
        source: the ONNX file, its weights beside it. `spec`: the graph asked for, which names its precision.
        target: where the engine goes.
        memory_limit_bytes: most scratch memory the engine may use; None leaves it to the SDK.
        timing_cache: what earlier builds measured on this device; b"" if there were none.
    """

    source: Path
    spec: GraphSpec
    target: Path
    memory_limit_bytes: int | None = None
    timing_cache: bytes = b""


@dataclass(frozen=True)
class Outcome:
    """What compiling gave: counts of layers for the report, and the timing cache to keep (None: there is none)."""

    layers: dict[str, Any] = field(default_factory=dict)
    timing_cache: bytes | None = None


class Compiler(Protocol):
    """An SDK that makes engines for one device key.

    Attributes:
        backend, device, versions: as in `EngineSpec`.
        runs_here: engines can run on this machine, so they are gated at once.
        in_place: the engine is the graph, or derived from it beside it: `derive` is called, else `compile`.
    """

    backend: str
    device: str
    versions: dict[str, str]
    runs_here: bool
    in_place: bool

    def source(self, graphs: tuple[GraphSpec, ...], spec: GraphSpec) -> GraphSpec:
        """The graph to compile for `spec`: itself, or the one this SDK makes that precision from."""
        ...

    def compile(self, job: Job, advance: Advance) -> Outcome:
        """Write `job.target`. Raises BuildError."""
        ...

    def derive(self, source: Path, spec: GraphSpec) -> bytes | None:
        """The ONNX file to run in the graph's place, over the same weight files; None for the graph itself."""
        ...
