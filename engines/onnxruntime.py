"""onnxruntime reads the bundle's graphs; its engine of a graph is the graph, or its `cpu` form over the same weights.

onnxruntime's own optimised files were weighed against that: they hold the weights a second time, are tied to one CPU's
instruction set, and save only the seconds that opening a session takes.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from edgeseg.backends.base import Probe
from edgeseg.errors import BuildError
from edgeseg.schema import GraphSpec

from .compiler import Job, Outcome
from .cpu_form import to_cpu_form
from .progress import Advance


class OnnxRuntimeCompiler:
    """See `compiler.Compiler`.

    Args:
        probe: what the backend finds on this machine.
    """

    backend = "onnxruntime"
    in_place = True
    runs_here = True

    def __init__(self, probe: Probe) -> None:
        self.device = probe.device or ""
        self.versions = {"onnxruntime": probe.versions.get("onnxruntime", "")}

    def source(self, graphs: tuple[GraphSpec, ...], spec: GraphSpec) -> GraphSpec:
        """The graph itself."""
        return spec

    def compile(self, job: Job, advance: Advance) -> Outcome:
        """Never needed."""
        raise BuildError(f"compile {job.source.name}", "onnxruntime compiles when it opens", "run the bundle")

    def derive(self, source: Path, spec: GraphSpec) -> bytes | None:
        """The `cpu` form of an fp32 graph; None where there is no attention to gain from."""
        if spec.precision != "fp32":
            return None
        model = onnx.load(source, load_external_data=False)
        return model.SerializeToString(deterministic=True) if to_cpu_form(model) else None
