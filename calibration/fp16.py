"""fp32 graph to typed fp16 graph: fp16 body, fp32 inputs and outputs, fp32 islands where fp16 would be wrong.

Every tensor has one type, that of the node which makes it; where a reader needs the other type, one Cast serves all
such readers. So no value goes to fp16 and back between two islands, and none is cast twice. `islands.py` has the rules.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from . import graph as graphs
from .graph import FLOAT, HALF
from .islands import FP32_INPUTS, fp32_nodes, unfit_for_half
from .net import Reader
from .weights import Array, Writer


@dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    Attributes:
        half_nodes, float_nodes: how many nodes compute floating point in fp16 and in fp32.
        casts: how many Cast nodes it put in.
        unfit_weights: weights that fp16 cannot hold, whose nodes therefore stay fp32.
    """

    half_nodes: int
    float_nodes: int
    casts: int
    unfit_weights: tuple[str, ...]


def to_half(
    model: onnx.ModelProto, reader: Reader, writer: Writer, name: str, wide: Collection[str] = ()
) -> Conversion:
    """Convert a model in place.

    Args:
        model: the fp32 master, loaded without its external data. Its opset stays.
        reader: reads its weights.
        writer: takes the weights of the new graph.
        name: of the graph, for messages.
        wide: tensors that were measured to be near or beyond fp16's range (`islands.SAFE`).

    Raises:
        BuildError: the graph holds graphs of its own.
    """
    graphs.refuse_nested(model, name)
    graphs.constants_to_initializers(model.graph)
    types = graphs.tensor_types(model)
    graphs.drop_float_casts(model.graph, types)
    weights = {tensor.name: reader.read(tensor) for tensor in model.graph.initializer}
    unfit = {key for key, array in weights.items() if types[key] == FLOAT and unfit_for_half(array)}
    retyping = _Retyping(model.graph, types, fp32_nodes(model.graph, types, unfit, wide))
    retyping.run()
    del model.graph.value_info[:]  # the types in it were those of the master
    _write_weights(model.graph, weights, retyping, writer)
    return retyping.report(unfit)


class _Retyping:
    """Rewrites the nodes; `self.half` and `self.single` are the initialisers needed as fp16 and as fp32."""

    def __init__(self, graph: onnx.GraphProto, types: dict[str, int], islands: set[str]) -> None:
        self.graph, self.types, self.islands = graph, types, islands
        self.weights = {tensor.name for tensor in graph.initializer}
        self.half: dict[str, str] = {}  # initialiser → its name as fp16
        self.single: set[str] = set()
        self.home: dict[str, int] = {value.name: FLOAT for value in graph.input}
        self.casts: dict[tuple[str, int], str] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.counts = {FLOAT: 0, HALF: 0}

    def run(self) -> None:
        originals = [onnx.NodeProto.FromString(node.SerializeToString()) for node in self.graph.node]
        for node in originals:
            self._retype(node)
        graphs.replace_nodes(self.graph, self._with_outputs())

    def report(self, unfit: set[str]) -> Conversion:
        casts = len(self.casts)
        return Conversion(self.counts[HALF], self.counts[FLOAT], casts, tuple(sorted(unfit)))

    def _retype(self, node: onnx.NodeProto) -> None:
        kind = FLOAT if node.output[0] in self.islands else HALF
        pinned = FP32_INPUTS.get(node.op_type, ())
        has_float = any(True for _ in graphs.floats([*node.input, *node.output], self.types))
        for position, name in enumerate(node.input):
            if name and self.types.get(name) == FLOAT:
                node.input[position] = self._as(name, FLOAT if position in pinned else kind)
        for name in graphs.floats(node.output, self.types):
            self.home[name] = kind
        if node.op_type == "Cast" and has_float and kind == HALF:
            _set_cast(node)
        self.counts[kind] += has_float
        self.nodes.append(node)

    def _as(self, name: str, kind: int) -> str:
        """The tensor in the wanted type: itself, a converted weight, or a Cast of it made now."""
        if name in self.weights:
            return self._weight_as(name, kind)
        if self.home.get(name, FLOAT) == kind:
            return name
        return self._cast(name, kind)

    def _weight_as(self, name: str, kind: int) -> str:
        if kind == FLOAT:
            self.single.add(name)
            return name
        return self.half.setdefault(name, f"{name}_fp16")

    def _cast(self, name: str, kind: int) -> str:
        if (name, kind) not in self.casts:
            result = f"{name}_{'fp16' if kind == HALF else 'fp32'}"
            self.nodes.append(helper.make_node("Cast", [name], [result], name=f"{result}_cast", to=kind))
            self.casts[name, kind] = result
        return self.casts[name, kind]

    def _with_outputs(self) -> list[onnx.NodeProto]:
        """The nodes, with each fp16 result renamed and cast to the fp32 output that the graph promises."""
        promised = [value.name for value in self.graph.output if self.home.get(value.name) == HALF]
        for name in promised:
            inner = f"{name}_inner"
            for node in self.nodes:
                _rename(node, name, inner)
            existing = self.casts.pop((name, FLOAT), None)
            if existing is not None:  # an island reads it too: one Cast serves both
                self.nodes = [node for node in self.nodes if node.output[0] != existing]
                for node in self.nodes:
                    _rename(node, existing, name)
            cast = helper.make_node("Cast", [inner], [name], name=f"{name}_cast", to=FLOAT)
            self.casts[inner, FLOAT] = name
            self.nodes.insert(1 + max(i for i, node in enumerate(self.nodes) if inner in node.output), cast)
        return self.nodes


def _rename(node: onnx.NodeProto, old: str, new: str) -> None:
    node.input[:] = [new if name == old else name for name in node.input]
    node.output[:] = [new if name == old else name for name in node.output]


def _set_cast(node: onnx.NodeProto) -> None:
    to = graphs.attribute(node, "to")
    if to is not None and to.i == FLOAT:
        to.i = HALF


def _write_weights(graph: onnx.GraphProto, weights: dict[str, Array], retyping: _Retyping, writer: Writer) -> None:
    """Replace the initialisers by those that the new nodes read."""
    read = {name for node in graph.node for name in node.input}
    del graph.initializer[:]
    for name, array in weights.items():
        if name in retyping.half:
            graph.initializer.append(writer.tensor(retyping.half[name], array, np.float16))
        if name in retyping.single or (name in read and name not in retyping.half):
            graph.initializer.append(writer.tensor(name, array))
