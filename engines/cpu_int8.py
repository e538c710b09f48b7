"""Integer products for a CPU: what onnxruntime runs best in the place of a quantized layer.

QuantizeLinear, DequantizeLinear, MatMul and the bias become QuantizeLinear to uint8 and com.microsoft's
MatMulIntegerToFloat. Left to itself, onnxruntime makes such nodes of some layers only: where three layers read one
tensor, or a bias is added, it multiplies dequantized numbers in fp32.

Activations become unsigned with zero point 128, the same numbers, because x86 multiplies unsigned with signed bytes.
A processor without VNNI adds pairs of such products in 16 bits, which overflow; there the weights become unsigned too,
when the graph is opened, and onnxruntime takes another, exact way. A form that was made elsewhere may come there too:
then the backend asks onnxruntime for the same; older versions of it need the zero point of signed weights for that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeseg.backends.host import overflows

DOMAIN = "com.microsoft"
MIDDLE = 128  # the zero point of unsigned numbers
ZERO, _SIGNED_ZERO, _SHIFT = "edgeseg_uint8_zero", "edgeseg_int8_zero", "edgeseg_uint8_shift"


def to_integer_products(model: ModelProto, *, unsigned_weights: bool | None = None) -> int:
    """Rewrite the quantized layers of a plain int8 graph in place; returns how many there are.

    Args:
        model: its weights need not be loaded.
        unsigned_weights: for a processor whose 16-bit sums overflow; None asks this machine's.
    """
    count = _Rewriter(model, overflows() if unsigned_weights is None else unsigned_weights).run()
    if count:
        add_domain(model)
    return count


class _Rewriter:
    def __init__(self, model: ModelProto, unsigned: bool) -> None:
        self._graph, self._unsigned = model.graph, unsigned
        self._makers = {name: node for node in model.graph.node for name in node.output}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._results = {value.name for value in model.graph.output}
        self._nodes: list[NodeProto] = []
        self._done: set[str] = set()  # outputs of nodes that were merged into a product
        self._unsigned_names: dict[str, str] = {}  # int8 tensor → the uint8 one in its place

    def run(self) -> int:
        """Rewrite; returns the number of products."""
        count = 0
        for node in list(self._graph.node):
            found = self._sides(node)
            if found is not None:
                self._multiply(node, *found)
                count += 1
            elif node.output[0] not in self._done:
                self._nodes.append(node)
        if count:
            del self._graph.node[:]
            self._graph.node.extend(live(self._nodes, set(self._results)))
            self._constant(np.array(MIDDLE, np.uint8), ZERO)
            self._constant(np.array(0, np.int8), _SIGNED_ZERO)
            self._constant(np.array(MIDDLE, np.int32), _SHIFT)
            drop_unread(self._graph)
        return count

    def _sides(self, node: NodeProto) -> tuple[NodeProto, NodeProto, NodeProto] | None:
        """QuantizeLinear of the activation, and DequantizeLinear of both sides, of a MatMul that multiplies such."""
        if node.op_type != "MatMul":
            return None
        given, weight = (self._made(name, "DequantizeLinear") for name in node.input)
        source = self._made(given.input[0], "QuantizeLinear") if given is not None else None
        if source is None or given is None or weight is None or weight.input[0] not in self._constants:
            return None
        axis = next((item.i for item in weight.attribute if item.name == "axis"), 1)
        return (source, given, weight) if axis == 1 else None

    def _made(self, name: str, kind: str) -> NodeProto | None:
        node = self._makers.get(name)
        return node if node is not None and node.op_type == kind else None

    def _multiply(self, node: NodeProto, source: NodeProto, given: NodeProto, weight: NodeProto) -> None:
        activation, matrix = self._activation(source), self._weight(weight)
        zero = ZERO if self._unsigned else _SIGNED_ZERO
        inputs = [activation, matrix, given.input[1], weight.input[1], ZERO, zero]
        output, bias = node.output[0], self._bias(node)
        if bias is not None:
            inputs.append(bias[1])
            output = bias[0]
            self._done.add(output)
        self._add("MatMulIntegerToFloat", inputs, output, f"{node.name}_integers", domain=DOMAIN)

    def _activation(self, source: NodeProto) -> str:
        signed = source.output[0]
        if signed not in self._unsigned_names:
            self._unsigned_names[signed] = f"{signed}_unsigned"
            inputs = [source.input[0], source.input[1], ZERO]
            self._add("QuantizeLinear", inputs, f"{signed}_unsigned", f"{source.name}_unsigned")
        return self._unsigned_names[signed]

    def _weight(self, weight: NodeProto) -> str:
        """The constant itself, or nodes that make it unsigned, which onnxruntime computes when it opens the graph."""
        name: str = weight.input[0]
        if not self._unsigned:
            return name
        if name not in self._unsigned_names:
            wide, moved, result = (f"{name}_{part}" for part in ("wide", "moved", "unsigned"))
            self._add("Cast", [name], wide, wide, to=TensorProto.INT32)
            self._add("Add", [wide, _SHIFT], moved, moved)
            self._add("Cast", [moved], result, result, to=TensorProto.UINT8)
            self._unsigned_names[name] = result
        return self._unsigned_names[name]

    def _bias(self, node: NodeProto) -> tuple[str, str] | None:
        """What the sum of a product and its bias is called, and the bias, if nothing else reads the product."""
        readers = self._readers.get(node.output[0], [])
        if len(readers) != 1 or readers[0].op_type != "Add" or node.output[0] in self._results:
            return None
        for name in readers[0].input:
            if name in self._constants and len(self._constants[name].dims) == 1:
                return readers[0].output[0], name
        return None

    def _add(self, kind: str, inputs: list[str], output: str, name: str, **attributes: Any) -> None:
        self._nodes.append(helper.make_node(kind, inputs, [output], name, **attributes))

    def _constant(self, value: npt.NDArray[Any], name: str) -> None:
        self._graph.initializer.append(numpy_helper.from_array(value, name))


def live(nodes: list[NodeProto], wanted: set[str]) -> list[NodeProto]:
    """The nodes that `wanted` tensors depend on, in their order."""
    kept = []
    for node in reversed(nodes):
        if any(name in wanted for name in node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


def drop_unread(graph: GraphProto) -> None:
    """Remove the initialisers that no node reads."""
    used = {name for node in graph.node for name in node.input}
    weights = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(weights)


def add_domain(model: ModelProto) -> None:
    """Say that the model uses onnxruntime's own operators."""
    if all(item.domain != DOMAIN for item in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
