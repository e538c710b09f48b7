"""A device with its compiler, for tests of what happens on one: engines are files, run by onnxruntime, and take a
time that the test says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from edgeseg.backends.base import Probe, Session
from edgeseg.backends.host import HostStream
from edgeseg.backends.onnxruntime import OnnxRuntimeBackend
from edgeseg.engines.compiler import Job, Outcome
from edgeseg.engines.layers import Layer
from edgeseg.engines.surgery import loaded
from edgeseg.errors import BuildError
from edgeseg.schema import GraphSpec

KEY = "sm87-trt10.3.0"


class Device:
    """A backend `tensorrt` whose engines are ONNX files.

    Attributes:
        seconds: (graph, precision) → what a run takes, else 1. `now`: the clock.
        opened: graph and precision of every session, in order.
    """

    name = "tensorrt"

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, str], float] = {}
        self.now = 0.0
        self.opened: list[tuple[str, str]] = []

    def clock(self) -> float:
        return self.now

    def probe(self, device: int = 0) -> Probe:
        return Probe(True, KEY, "a fake for tests", builds=True)

    def open(self, engine: Path, graph: GraphSpec, device: int = 0) -> Session:
        assert engine.suffix == ".engine"
        self.opened.append((graph.name, graph.precision))
        return _Session(self, OnnxRuntimeBackend(1).open(engine, graph), graph)

    def streams(self, count: int, device: int = 0) -> list[Any]:
        return [HostStream()]


class _Session:
    def __init__(self, device: Device, inner: Session, graph: GraphSpec) -> None:
        self._device, self._inner, self._graph = device, inner, graph
        self.upload, self.download, self.close = inner.upload, inner.download, inner.close

    def run(self, inputs: Any, stream: Any = None) -> dict[str, Any]:
        self._device.now += self._device.seconds.get((self._graph.name, self._graph.precision), 1.0)
        return self._inner.run(inputs, stream)


class DeviceCompiler:
    """Compiles for `Device`.

    Attributes:
        refused: precisions that it does not compile.
        layers: (graph, precision) → what it says that it made.
        compiled: graph and precision of every compilation, in order.
    """

    backend = "tensorrt"
    device = KEY
    in_place = False
    form = "typed"
    typed = True
    bf16 = False

    def __init__(self, runs_here: bool = True) -> None:
        self.runs_here = runs_here
        self.versions = {"tensorrt": "10.3.0"}
        self.refused: set[str] = set()
        self.layers: dict[tuple[str, str], list[Layer]] = {}
        self.compiled: list[tuple[str, str]] = []

    def source(self, graphs: tuple[GraphSpec, ...], spec: GraphSpec) -> GraphSpec:
        return spec

    def compile(self, job: Job, advance: Any) -> Outcome:
        key = (job.spec.name, job.spec.precision)
        if job.spec.precision in self.refused:
            raise BuildError(f"compile {job.source.name}", "the device has no such arithmetic", "use another precision")
        self.compiled.append(key)
        model = onnx.load(job.source, load_external_data=False)
        files = {path.name: path for path in job.source.parent.glob("*.bin")}
        weights = [loaded(tensor, files) for tensor in model.graph.initializer]
        del model.graph.initializer[:]
        model.graph.initializer.extend(weights)
        job.target.write_bytes(model.SerializeToString())
        return Outcome(self.layers.get(key, []), timing_cache=b"measured")
