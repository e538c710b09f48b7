"""In which block a graph of low precision goes wrong.

Where an error is largest is not where it was made: a transformer may enlarge what its first layer did from block to
block, and to have its last block exact then helps nothing. So the graph is run twice, as it is and with every block
given what the fp32 master's blocks gave. The second run shows what a block adds by itself, both together how much of it
the blocks behind it make of that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, shape_inference

from edgeseg.backends.base import Array
from edgeseg.bundle import Bundle
from edgeseg.schema import GraphSpec, TensorSpec
from edgeseg.selection import Plan

from .compiler import Compiler, Job
from .lifting import boundaries, prune
from .making import placed
from .surgery import FLOAT, set_nodes, types_of

_TINY = 1e-30


@dataclass(frozen=True)
class Blamed:
    """A block, and what is left of its own error behind the last block, relative: 0.01 is one hundredth."""

    block: str
    error: float

    def entry(self) -> dict[str, str | float | None]:
        """For a report: JSON has no infinity, None stands for it."""
        return {"block": self.block, "error": self.error if math.isfinite(self.error) else None}


def find_blame(
    bundle: Bundle, compiler: Compiler, plan: Plan, spec: GraphSpec, feed: Mapping[str, Array]
) -> list[Blamed]:
    """The blocks of a graph, the one first whose error counts most.

    Both the graph and its fp32 master are compiled with the tensors between their blocks as outputs, the graph also
    with them as inputs, and run on this device.

    Args:
        bundle: the opened bundle, which is not changed.
        compiler: makes them.
        plan: runs them.
        spec: the graph.
        feed: its inputs.
    """
    master = master_of(bundle, spec)
    if master is None:
        return []
    with bundle.edit() as edit:
        probe = _Probe(bundle, compiler, plan, edit.scratch())
        blocks = _common(bundle, spec, master)
        tensors = list(blocks.values())
        wanted = probe.values(master, tensors, feed, {})
        found, alone = probe.values(spec, tensors, feed, {}), probe.values(spec, tensors, feed, wanted)
    own, errors = ([_distance(values[name], wanted[name]) for name in tensors] for values in (alone, found))
    left = carried(own, errors, [float(np.linalg.norm(_finite(wanted[name]))) for name in tensors])
    return sorted(map(Blamed, blocks, left), key=lambda blamed: -blamed.error)


def carried(own: Sequence[float], errors: Sequence[float], lengths: Sequence[float]) -> list[float]:
    """What each block's own error has become behind the last block.

    Errors that have nothing to do with each other add up as squares. So what is not a block's own came in, and what it
    was before tells how the block enlarges it; but a residual stream keeps at least what it carries.

    Args:
        own: of each block, the relative error of its result if its input is exact.
        errors: of each result, as it is in the whole graph.
        lengths: of each result, as a vector.
    """
    left, factor = [], 1.0
    for i in reversed(range(len(own))):
        left.append(own[i] * factor)
        if i:
            kept = max(lengths[i - 1], _TINY) / max(lengths[i], _TINY)
            known = math.isfinite(errors[i]) and math.isfinite(own[i]) and errors[i - 1] > 0
            came_in = math.sqrt(max(errors[i] ** 2 - own[i] ** 2, 0)) if known else 0.0
            factor *= max(kept, came_in / errors[i - 1] if known else 0.0)
    return left[::-1]


def master_of(bundle: Bundle, spec: GraphSpec) -> GraphSpec | None:
    """The fp32 graph of a graph of lower precision, if the bundle has it."""
    found = [g for g in bundle.manifest.graphs if (g.name, g.precision, g.canvas) == (spec.name, "fp32", spec.canvas)]
    there = bool(found) and found[0].file in bundle.manifest.files
    return found[0] if there and found[0].file != spec.file else None


def files_of(bundle: Bundle, spec: GraphSpec) -> dict[str, Path]:
    """Name → path of a graph's weights."""
    return {Path(path).name: bundle.file(path) for path in spec.data}


def _common(bundle: Bundle, spec: GraphSpec, master: GraphSpec) -> dict[str, str]:
    """Block → the tensor that leaves it, where both graphs have it."""
    low = onnx.load(bundle.graph_files(spec), load_external_data=False)
    made = {name for node in low.graph.node for name in node.output}
    exact = onnx.load(bundle.graph_files(master), load_external_data=False)
    types = types_of(exact)
    return {block: name for block, name in boundaries(exact).items() if name in made and types.get(name) == FLOAT}


def _distance(found: Array, wanted: Array) -> float:
    """Relative to what is wanted; infinite if there is a NaN, or an infinity that only one of them has."""
    apart = found != wanted  # a mask's infinities are equal, and no distance
    if not (np.isfinite(found[apart]).all() and np.isfinite(wanted[apart]).all()):
        return float("inf")
    return float(np.linalg.norm(found[apart] - wanted[apart])) / max(float(np.linalg.norm(_finite(wanted))), _TINY)


def _finite(array: Array) -> Array:
    return array[np.isfinite(array)]


@dataclass(frozen=True)
class _Probe:
    """Runs graphs for tensors inside them."""

    bundle: Bundle
    compiler: Compiler
    plan: Plan
    folder: Path

    def values(
        self, spec: GraphSpec, tensors: Sequence[str], feed: Mapping[str, Array], given: Mapping[str, Array]
    ) -> dict[str, Array]:
        """Tensor → its value, float32. Whatever reads one of `given` reads the value that it has there."""
        source = self.compiler.source(self.bundle.manifest.graphs, spec)
        model = onnx.load(self.bundle.graph_files(source), load_external_data=False)
        feed = dict(feed) | {f"given_{index}": value for index, value in enumerate(given.values())}
        _give(model, {name: f"given_{index}" for index, name in enumerate(given)})
        names = {tensor: f"probe_{index}" for index, tensor in enumerate(tensors)}
        probed = replace(spec, axes={}, inputs=_fixed(model, feed), outputs=_outputs(model, names))
        path = placed(model, [self.bundle.file(file) for file in source.data], self.folder)
        job = Job(path, probed, self.folder / "probe.engine", self.folder, changed=True)
        outcome = self.compiler.compile(job, lambda _share: None)
        engine = job.target
        if outcome.model is not None:
            engine = self.folder / "probe.onnx"
            engine.write_bytes(outcome.model)
        session = self.plan.backend.open(engine, probed, self.plan.device)
        try:
            results = session.run({name: session.upload(array) for name, array in feed.items()})
            return {tensor: session.download(results[name]) for tensor, name in names.items()}
        finally:
            session.close()


def _give(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Let what reads a tensor read an input instead: tensor → the name of the float32 input."""
    types = types_of(model)
    for node in model.graph.node:
        node.input[:] = [f"{name}_given" if name in names else name for name in node.input]
    casts = [helper.make_node("Cast", [new], [f"{old}_given"], new, to=types[old]) for old, new in names.items()]
    set_nodes(model, [*casts, *model.graph.node])
    model.graph.input.extend(helper.make_tensor_value_info(name, FLOAT, None) for name in names.values())


def _fixed(model: onnx.ModelProto, feed: Mapping[str, Array]) -> tuple[TensorSpec, ...]:
    """Give the inputs the extents of what will be fed."""
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    del model.graph.input[:]
    for name, array in feed.items():
        model.graph.input.append(helper.make_tensor_value_info(name, kinds[name], array.shape))
    return tuple(TensorSpec(name, str(array.dtype), array.shape) for name, array in feed.items())


def _outputs(model: onnx.ModelProto, names: Mapping[str, str]) -> tuple[TensorSpec, ...]:
    """Make these the only outputs: tensor → the name of a float32 copy of it."""
    del model.graph.output[:]
    for tensor, name in names.items():
        model.graph.node.append(helper.make_node("Cast", [tensor], [name], name, to=TensorProto.FLOAT))
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    prune(model)
    found = {value.name: value for value in shape_inference.infer_shapes(model).graph.output}
    specs = []
    for value in model.graph.output:
        value.CopyFrom(found[value.name])
        specs.append(TensorSpec(value.name, "float32", tuple(d.dim_value for d in value.type.tensor_type.shape.dim)))
    return tuple(specs)
