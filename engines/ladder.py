"""What a repair tries on one graph, cheapest first, and in which block the graph goes wrong.

1. The other form of attention, which no compiler fuses: the fused kernel may be what is wrong.
2. Normalisation in fp32: its sums leave fp16's range first.
3. bfloat16, where the device has it: fp32's range in the place of fp16's.
4. The fp32 master's own nodes in the place of as few blocks as will do, those first that add most to the error; at last
   of the whole graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
from .lifting import block_of, boundaries, lift
from .making import placed
from .surgery import norms_in_fp32, to_bf16, turn_softmax

Rewrite = Callable[[onnx.ModelProto], int]


@dataclass(frozen=True)
class Rung:
    """One thing to try: what it is in words, and what does it to a graph, on whatever canvas that is."""

    change: str
    rewrite: Callable[[GraphSpec], Rewrite]


@dataclass(frozen=True)
class Blamed:
    """A block, and how much it adds to the relative error of what flows through: 0.01 is one hundredth."""

    block: str
    error: float


def rungs(compiler: Compiler, bundle: Bundle, spec: GraphSpec) -> Iterator[Rung]:
    """The rungs for a graph that leave it in its precision, one to try after the other."""
    yield Rung("attention that is not fused", lambda _: turn_softmax)
    yield Rung("normalisation in fp32", lambda _: norms_in_fp32)
    if compiler.bf16:
        yield Rung("bf16", lambda spec: lambda model: to_bf16(model, _files(bundle, spec)))


def _files(bundle: Bundle, spec: GraphSpec) -> dict[str, Path]:
    """Name → path of a graph's weights."""
    return {Path(path).name: bundle.file(path) for path in spec.data}


def master_of(bundle: Bundle, spec: GraphSpec) -> GraphSpec | None:
    """The fp32 graph of a graph of lower precision, if the bundle has it."""
    found = [g for g in bundle.manifest.graphs if (g.name, g.precision, g.canvas) == (spec.name, "fp32", spec.canvas)]
    there = bool(found) and found[0].file in bundle.manifest.files
    return found[0] if there and found[0].file != spec.file else None


def lifts(bundle: Bundle, spec: GraphSpec, blame: Callable[[], list[Blamed]]) -> list[Rung]:
    """Rungs with one block more of the fp32 master each, in the order that `blame` gives; the last is all of it.

    None at all if the bundle has no master; `blame` is not asked then.
    """
    everything = whole(bundle, spec)
    if everything is None:
        return []
    names = [blamed.block for blamed in blame()]
    return [*(_lifted(bundle, names, count) for count in range(1, len(names) + 1)), everything]


def whole(bundle: Bundle, spec: GraphSpec) -> Rung | None:
    """The rung that is the fp32 master, if the bundle has it."""
    if master_of(bundle, spec) is None:
        return None
    return Rung("the whole graph in fp32", lambda spec: lambda model: _lift(bundle, spec, model, lambda _: True))


def _lifted(bundle: Bundle, names: list[str], count: int) -> Rung:
    blocks = frozenset(names[:count])
    change = f"{count} of {len(names)} blocks in fp32: {', '.join(names[:count])}"
    return Rung(change, lambda spec: lambda model: _lift(bundle, spec, model, lambda n: block_of(n.name) in blocks))


def fewest(most: int, passes: Callable[[int], bool]) -> int | None:
    """The smallest of 1 to `most` that passes, where what is larger passes too; None if even `most` does not.

    Asks for 1, 2, 4, 8 and so on until one passes, and halves what is left: one bad block is found at once, and among
    25 counts at most ten are asked for.
    """
    low, high = 0, min(1, most)
    while high > low and not passes(high):
        low, high = high, min(2 * high, most)
    if high == low:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


def _lift(bundle: Bundle, spec: GraphSpec, model: onnx.ModelProto, chosen: Callable[[onnx.NodeProto], bool]) -> int:
    """From the master of the graph's own canvas: elsewhere its shapes differ."""
    master = master_of(bundle, spec)
    if master is None:
        return 0
    whole = onnx.load(bundle.graph_files(master), load_external_data=False)
    return lift(model, whole, _files(bundle, master), chosen)


def find_blame(
    bundle: Bundle, compiler: Compiler, plan: Plan, spec: GraphSpec, feed: Mapping[str, Array]
) -> list[Blamed]:
    """The blocks of a graph, the one first that adds most to the error.

    Both the graph and its fp32 master are compiled with the tensors between their blocks as outputs, and run on this
    device with the same inputs.

    Args:
        bundle: the opened bundle, which is not changed.
        compiler: makes the two.
        plan: runs them.
        spec: the graph.
        feed: its inputs.
    """
    master = master_of(bundle, spec)
    if master is None:
        return []
    with bundle.edit() as edit:
        probe = _Probe(bundle, compiler, plan, edit.scratch())
        tensors = _common(bundle, spec, master)
        found = [probe.values(graph, tensors, feed) for graph in (spec, master)]
    errors = [_distance(found[0][name], found[1][name]) for name in tensors.values()]
    before = [0.0, *errors][:-1]  # nothing, where the two graphs share no tensor
    grown = [Blamed(block, _growth(*pair)) for block, *pair in zip(tensors, before, errors, strict=True)]
    return sorted(grown, key=lambda blamed: -blamed.error)


def _common(bundle: Bundle, spec: GraphSpec, master: GraphSpec) -> dict[str, str]:
    """Block → the tensor that leaves it, where both graphs have it."""
    low = onnx.load(bundle.graph_files(spec), load_external_data=False)
    made = {name for node in low.graph.node for name in node.output}
    found = boundaries(onnx.load(bundle.graph_files(master), load_external_data=False))
    return {block: tensor for block, tensor in found.items() if tensor in made}


def _distance(found: Array, wanted: Array) -> float:
    """Relative to what is wanted; infinite if there is a NaN, or an infinity that only one of them has."""
    apart = found != wanted  # a mask's infinities are equal, and no distance
    if not (np.isfinite(found[apart]).all() and np.isfinite(wanted[apart]).all()):
        return float("inf")
    length = float(np.linalg.norm(wanted[np.isfinite(wanted)]))
    return float(np.linalg.norm(found[apart] - wanted[apart])) / max(length, 1e-30)


def _growth(before: float, after: float) -> float:
    return 0.0 if np.isinf(before) else after - before


@dataclass(frozen=True)
class _Probe:
    """Runs graphs for tensors inside them."""

    bundle: Bundle
    compiler: Compiler
    plan: Plan
    folder: Path

    def values(self, spec: GraphSpec, tensors: Mapping[str, str], feed: Mapping[str, Array]) -> dict[str, Array]:
        """Tensor → its value, float32."""
        source = self.compiler.source(self.bundle.manifest.graphs, spec)
        model = onnx.load(self.bundle.graph_files(source), load_external_data=False)
        names = {tensor: f"probe_{index}" for index, tensor in enumerate(tensors.values())}
        outputs = _add_outputs(model, names)
        probed = replace(spec, outputs=(*spec.outputs, *outputs))
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


def _add_outputs(model: onnx.ModelProto, names: Mapping[str, str]) -> list[TensorSpec]:
    """Give a graph more outputs: tensor → the name of a float32 copy of it."""
    specs = []
    shapes = {
        value.name: value.type.tensor_type.shape for value in shape_inference.infer_shapes(model).graph.value_info
    }
    shapes |= {value.name: value.type.tensor_type.shape for value in model.graph.output}
    for tensor, name in names.items():
        extents = [dim.dim_value for dim in shapes[tensor].dim]
        model.graph.node.append(helper.make_node("Cast", [tensor], [name], name, to=TensorProto.FLOAT))
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, extents))
        specs.append(TensorSpec(name, "float32", tuple(extents)))
    return specs
