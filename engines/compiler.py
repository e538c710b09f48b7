"""The seam between a build and the SDK that does it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edgeseg.schema import GraphSpec

from .layers import Layer
from .progress import Advance


@dataclass(frozen=True)
class Job:
    """One graph to compile.

    Attributes:
        source: the ONNX file, its weights beside it. `spec`: the graph asked for, which names its precision.
        target: where the engine goes.
        scratch: a folder for files that are needed only meanwhile.
        memory_limit_bytes: most scratch memory the engine may use; None leaves it to the SDK.
        timing_cache: what earlier builds measured on this device; b"" if there were none.
        changed: `source` is not the bundle's graph but made from it, so it must be kept to be run.
    """

    source: Path
    spec: GraphSpec
    target: Path
    scratch: Path
    memory_limit_bytes: int | None = None
    timing_cache: bytes = b""
    changed: bool = False


@dataclass(frozen=True)
class Outcome:
    """What compiling gave.

    Attributes:
        layers: what the engine is made of, as far as the SDK tells.
        timing_cache: to keep; None if there is none.
        model: of an SDK that works in place, the ONNX file to run in the graph's place; None for the graph itself.
    """

    layers: list[Layer] = field(default_factory=list)
    timing_cache: bytes | None = None
    model: bytes | None = None


class Compiler(Protocol):
    """An SDK that makes engines for one device key.

    Attributes:
        backend, device, versions: as in `EngineSpec`.
        runs_here: engines can run on this machine, so they are gated at once.
        in_place: the engine is the graph, or an ONNX file beside it that shares its weights.
        form: of graphs that have several, the one it reads.
        typed: the graph alone decides every precision; if not (TensorRT 8.6), the compiler may stay above what it is
            allowed.
        bf16: it computes bfloat16 on its device.
    """

    backend: str
    device: str
    versions: dict[str, str]
    runs_here: bool
    in_place: bool
    form: str
    typed: bool
    bf16: bool

    def source(self, graphs: tuple[GraphSpec, ...], spec: GraphSpec) -> GraphSpec:
        """The graph to compile for `spec`: itself, or the one this SDK makes that precision from."""
        ...

    def compile(self, job: Job, advance: Advance) -> Outcome:
        """Write `job.target`, or in place return what to run. Raises BuildError."""
        ...
