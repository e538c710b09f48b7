"""Engines of TensorRT-RTX, made ahead of time: also on a machine without a GPU, and for several generations at once."""

from __future__ import annotations

from typing import Any

from edgeseg.backends.base import Probe
from edgeseg.backends.keys import device_key
from edgeseg.errors import BuildError
from edgeseg.schema import GraphSpec

from .compiler import Job, Outcome
from .progress import Advance
from .trt_network import Options, compile_graph


class TensorRTRTXCompiler:
    """See `compiler.Compiler`.

    Args:
        probe: what the backend finds on this machine.
        targets: GPU generations to compile for ("sm86", "sm89"); empty means this machine's own.

    Raises:
        BuildError: a target that this SDK cannot compile for, or none where there is no GPU.
    """

    backend = "tensorrt_rtx"
    in_place = False
    form = "typed"
    typed = True

    def __init__(self, probe: Probe, targets: tuple[str, ...] = ()) -> None:
        import tensorrt_rtx

        self._trt: Any = tensorrt_rtx
        version = str(tensorrt_rtx.__version__)
        self._targets = self._checked(targets) if targets or not probe.device else (probe.device.partition("-")[0],)
        self.device = device_key(self._targets, "rtx", version)
        self.versions = {"tensorrt_rtx": version}
        self.runs_here = probe.works and self.device == probe.device
        self.bf16 = "sm75" not in self._targets

    def possible_targets(self) -> list[str]:
        """The GPU generations that this SDK compiles for."""
        names = self._trt.ComputeCapability.__members__
        return sorted((name.lower() for name in names if name.startswith("SM")), key=lambda name: int(name[2:]))

    def source(self, graphs: tuple[GraphSpec, ...], spec: GraphSpec) -> GraphSpec:
        """The graph itself."""
        return spec

    def compile(self, job: Job, advance: Advance) -> Outcome:
        """Write the engine; its layers are in the compiler's log."""
        options = Options(job.memory_limit_bytes, adjust=self._set_targets)
        compiled = compile_graph(self._trt, job.source, job.spec, options, advance)
        job.target.write_bytes(compiled.plan)
        return Outcome(compiled.layers)

    def _set_targets(self, config: Any) -> None:
        config.num_compute_capabilities = len(self._targets)
        for index, target in enumerate(self._targets):
            config.set_compute_capability(self._trt.ComputeCapability.__members__[target.upper()], index)

    def _checked(self, targets: tuple[str, ...]) -> tuple[str, ...]:
        possible = self.possible_targets()
        todo = f"give --target one or more of {','.join(possible)}"
        if not targets:
            raise BuildError("build with tensorrt_rtx for this machine", "it has no GPU that works", todo)
        unknown = [target for target in targets if target not in possible]
        if unknown:
            found = f"TensorRT-RTX {self._trt.__version__} does not compile for {', '.join(unknown)}"
            raise BuildError(f"build for {','.join(targets)}", found, todo)
        return tuple(sorted(set(targets), key=possible.index))
