"""The seam every engine SDK sits behind: a `Backend` says what works and opens a `Session`; a session has four verbs.

    tensor = session.upload(array)      numpy → where the engine runs (a CPU backend returns the array itself)
    outputs = session.run(inputs)       tensors → tensors, by name; never copies through the host
    array = session.download(tensor)    back to numpy
    session.close()                     frees the engine

A `Tensor` is opaque outside its backend; tensors of one backend and device go into any of its sessions. Sessions that
run on a GPU enqueue `run` on the given `Stream` and return at once; `download` waits for what it needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgeseg.schema import GraphSpec

Array = npt.NDArray[Any]


class Tensor(Protocol):
    """Data where an engine runs. `shape` is complete, `dtype` a numpy dtype."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...


class Event(Protocol):
    """A point in a stream's work."""


class Stream(Protocol):
    """An ordered queue of device work. On a CPU there is one, and every method is a no-op."""

    def record(self) -> Event: ...

    def wait(self, event: Event) -> None: ...

    def synchronize(self) -> None: ...


class Session(Protocol):
    """One opened engine. Not thread-safe: one per thread."""

    def upload(self, array: Array) -> Tensor: ...

    def run(self, inputs: Mapping[str, Tensor], stream: Stream | None = None) -> dict[str, Tensor]: ...

    def download(self, tensor: Tensor) -> Array: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Probe:
    """What a backend finds on this machine.

    Attributes:
        works: an engine of this backend can run here.
        device: device key ("cpu-x86_64", "sm87-trt10.3.0"); None if none works.
        why: one line: the device's name, or the reason that nothing works and what to install.
        versions: SDK and driver versions found.
        builds: engines can be built here even if they cannot run (tensorrt_rtx without a GPU).
    """

    works: bool
    device: str | None
    why: str
    versions: dict[str, str] = field(default_factory=dict)
    builds: bool = False


class Backend(Protocol):
    """An engine SDK."""

    name: str

    def probe(self, device: int = 0) -> Probe:
        """Look for the SDK and the device with this index; never raises, never compiles anything."""
        ...

    def open(self, engine: Path, graph: GraphSpec, device: int = 0) -> Session:
        """Open an engine file whose digest has been checked. Raises BackendError."""
        ...

    def streams(self, count: int, device: int = 0) -> list[Stream]:
        """`count` independent streams."""
        ...
