"""onnxruntime reads the bundle's graphs as they are, so its engine of a graph is the graph.

Its own optimised files were weighed against that: they hold the weights a second time, are tied to one CPU's
instruction set, and save only the seconds that opening a session takes.
"""

from __future__ import annotations

from edgeseg.backends.base import Probe
from edgeseg.errors import BuildError
from edgeseg.schema import GraphSpec

from .compiler import Job, Outcome
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
