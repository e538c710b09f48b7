"""Engines of full TensorRT, 8.6 and 10 to 11, made on the machine that will run them."""

from __future__ import annotations

from typing import Any

from edgeseg.backends.base import Probe
from edgeseg.errors import BuildError
from edgeseg.schema import GraphSpec

from . import legacy
from .compiler import Job, Outcome
from .progress import Advance
from .trt_network import Options, compile_graph


class TensorRTCompiler:
    """See `compiler.Compiler`.

    Args:
        probe: what the backend finds on this machine.
    """

    backend = "tensorrt"
    in_place = False
    runs_here = True

    def __init__(self, probe: Probe) -> None:
        import tensorrt

        self._trt: Any = tensorrt
        self.device = probe.device or ""
        self.versions = {"tensorrt": str(tensorrt.__version__)}
        self.typed = not legacy.is_legacy(self._trt)
        self.form = "typed" if self.typed else "plain"
        self.bf16 = self.typed and not self.device.startswith("sm7")

    def source(self, graphs: tuple[GraphSpec, ...], spec: GraphSpec) -> GraphSpec:
        """The graph itself; for TensorRT 8.6, which takes fp16 from a builder flag, the fp32 master."""
        if self.typed or spec.precision == "fp32" or spec.form == "plain":
            return spec
        asked = f"build {spec.name} in {spec.precision}"
        masters = [g for g in graphs if (g.name, g.canvas, g.precision) == (spec.name, spec.canvas, "fp32")]
        if not masters:
            found = f"TensorRT 8.6 makes {spec.precision} engines from fp32 graphs, and the bundle has none"
            raise BuildError(asked, found, "pack the bundle with its fp32 graphs")
        if spec.precision != "fp16" and spec.file != masters[0].file:
            found = "TensorRT 8.6 reads only int8 graphs of the plain form"
            raise BuildError(asked, found, "build with --precision int8 or fp16")
        return masters[0]

    def compile(self, job: Job, advance: Advance) -> Outcome:
        """Write the engine, and read its layers back from the device."""
        options = Options(job.memory_limit_bytes, timing_cache=job.timing_cache, inspect=True)
        compiled = compile_graph(self._trt, job.source, job.spec, options, advance)
        job.target.write_bytes(compiled.plan)
        return Outcome(compiled.layers, compiled.timing_cache)
