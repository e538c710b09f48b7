"""What of a vision transformer is quantized: its weighted products, and for fp8 the products of its attentions.

A *layer* is a MatMul with a constant matrix, or a Conv. Left out are:

1. Convs with fewer than `SMALLEST` channels on either side: the patch embedding, which reads three.
2. Products of one row, and matrices narrower than `SMALLEST`: they wait for memory, not for arithmetic.
3. Constants with more than two axes: SAM's position tables, whose products are added to attention scores.
4. Nodes in an fp32 scope (`edgeseg.islands`).

A *site* is a tensor that layers read; it is quantized once, whoever reads it. Norms, softmax, GELU and residual sums
are no layers and so stay as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import onnx

from edgeseg.errors import BuildError
from edgeseg.islands import is_fp32_scope

from .graph import FLOAT, attribute, users

SMALLEST = 16


@dataclass(frozen=True)
class Layer:
    """A product with a weight.

    Attributes:
        node: its name. `weight`: name of its constant. `axis`: of the weight's output channels.
    """

    node: str
    weight: str
    axis: int


@dataclass(frozen=True)
class Site:
    """A tensor that layers read.

    Attributes:
        name: the first of its layers' names in alphabetical order, which is the same at every canvas.
        tensor: its name in this graph.
        layers: those that read it, in graph order.
        norm: the LayerNormalization that makes it, or what a Transpose that leaves the channels alone moves, if only
            layers read it; its scale can take factors up.
    """

    name: str
    tensor: str
    layers: tuple[Layer, ...]
    norm: str | None = None


@dataclass(frozen=True)
class Product:
    """A product of an attention: q with k, or the softmax with v.

    Attributes:
        node: name of the MatMul. `shares`: its left side is a softmax, whose values lie between 0 and 1.
    """

    node: str
    shares: bool


@dataclass(frozen=True)
class Sites:
    """All that can be quantized in one graph.

    Attributes:
        layers: sites of layers, in graph order.
        attentions: products of attentions, each q-k product directly before its softmax-v product.
        peaks: tensors of which only the largest magnitude matters, by a name that is the same at every canvas: the
            residual stream, by the node that makes it, what is added to it, and what attentions multiply.
    """

    layers: tuple[Site, ...]
    attentions: tuple[Product, ...] = ()
    peaks: dict[str, str] = field(default_factory=dict)

    def operands(self) -> dict[str, str]:
        """Of the peaks, what attentions multiply: tensor → name."""
        products = {product.node for product in self.attentions}
        return {tensor: name for name, tensor in self.peaks.items() if name.rpartition(":")[0] in products}


def find_sites(model: onnx.ModelProto, within: str = "") -> Sites:
    """The sites of a graph whose nodes are named and whose constants are initialisers.

    Args:
        model: its weights need not be loaded.
        within: a pattern in the names of the layers and attentions to take; peaks are taken all.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    rows = _rows(model)
    grouped: dict[str, list[Layer]] = {}
    for node in graph.node:
        layer = _layer(node, constants, rows)
        if layer is not None and re.search(within, layer.node):
            grouped.setdefault(node.input[0], []).append(layer)
    norms = _private_norms(graph, grouped)
    found = tuple(
        Site(min(layer.node for layer in layers), tensor, tuple(layers), norms.get(tensor))
        for tensor, layers in grouped.items()
    )
    attentions = tuple(product for product in _attentions(graph, constants) if re.search(within, product.node))
    return Sites(found, attentions, _peaks(graph, attentions))


def require_sites(sites: Sites, name: str) -> Sites:
    """The sites, if there are any. Raises BuildError."""
    if not sites.layers:
        found = f"it has no MatMul or Conv with a weight of {SMALLEST} channels or more"
        raise BuildError(f"quantize the graph {name}", found, "give the graph of a vision transformer")
    return sites


def _layer(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], rows: dict[str, int]) -> Layer | None:
    weight = constants.get(node.input[1]) if len(node.input) > 1 else None
    if weight is None or weight.data_type != FLOAT or node.input[0] in constants or is_fp32_scope(node.name):
        return None
    if node.op_type == "MatMul" and len(weight.dims) == 2 and rows.get(node.input[0], 2) > 1:
        return Layer(node.name, weight.name, 1) if min(weight.dims) >= SMALLEST else None
    if node.op_type == "Conv" and len(weight.dims) > 2:
        return Layer(node.name, weight.name, 0) if min(weight.dims[:2]) >= SMALLEST else None
    return None


def _rows(model: onnx.ModelProto) -> dict[str, int]:
    """How many vectors a tensor holds: the product of all axes but the last. An unknown axis counts as many."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    result = {}
    for value in (*graph.input, *graph.value_info):
        shape = value.type.tensor_type.shape
        count = 1
        for axis in list(shape.dim)[:-1]:
            count *= axis.dim_value or 2
        if value.type.tensor_type.HasField("shape"):
            result[value.name] = count
    return result


def _private_norms(graph: onnx.GraphProto, grouped: dict[str, list[Layer]]) -> dict[str, str]:
    """Tensor → the LayerNormalization that makes it, where layers and nothing else read it, as MatMuls."""
    results, readers = {value.name for value in graph.output}, users(graph)
    makers = {name: node for node in graph.node for name in node.output}
    found = {}
    for tensor, layers in grouped.items():
        wanted = {layer.node for layer in layers}
        maker = makers.get(tensor)
        while maker is not None and _private(maker, wanted, results, readers) and _keeps_channels(maker):
            wanted, maker = {maker.name}, makers.get(maker.input[0])
        if maker is not None and maker.op_type == "LayerNormalization" and _private(maker, wanted, results, readers):
            last = attribute(maker, "axis")
            if last is None or last.i == -1:
                found[tensor] = maker.name
    return found


def _private(
    maker: onnx.NodeProto, wanted: set[str], results: set[str], readers: dict[str, list[onnx.NodeProto]]
) -> bool:
    """Whether only the `wanted` nodes, products and what moves values to them, read what `maker` makes."""
    tensor = maker.output[0]
    kinds = ("MatMul", "Transpose")
    return tensor not in results and all(node.name in wanted and node.op_type in kinds for node in readers[tensor])


def _keeps_channels(node: onnx.NodeProto) -> bool:
    order = attribute(node, "perm")
    return node.op_type == "Transpose" and order is not None and order.ints[-1] == len(order.ints) - 1


def _attentions(graph: onnx.GraphProto, constants: dict[str, onnx.TensorProto]) -> tuple[Product, ...]:
    """MatMul, [Add,] Softmax, MatMul: both products, if no weight is among their factors."""
    makers = {name: node for node in graph.node for name in node.output}
    readers, products = users(graph), []
    for node in graph.node:
        if node.op_type != "Softmax":
            continue
        scores = makers.get(node.input[0])
        if scores is not None and scores.op_type == "Add":
            scores = next((makers[name] for name in scores.input if _is_product(makers.get(name), constants)), None)
        weighted = readers[node.output[0]]
        if not _is_product(scores, constants) or len(weighted) != 1 or not _is_product(weighted[0], constants):
            continue
        if weighted[0].input[0] == node.output[0] and scores is not None:
            products += [Product(scores.name, False), Product(weighted[0].name, True)]
    return tuple(products)


def _peaks(graph: onnx.GraphProto, attentions: tuple[Product, ...]) -> dict[str, str]:
    return stream(graph) | _operands(graph, attentions)


def stream(graph: onnx.GraphProto) -> dict[str, str]:
    """The residual stream by name: the sums that a norm reads or the graph gives, and both their sides."""
    constants = {tensor.name for tensor in graph.initializer}
    read = {node.input[0] for node in graph.node if node.op_type == "LayerNormalization"}
    ends = read | {value.name for value in graph.output}
    peaks: dict[str, str] = {}
    for node in graph.node:
        if node.op_type == "Add" and node.output[0] in ends:
            sides = {f"{node.name}:{side}": name for side, name in enumerate(node.input) if name not in constants}
            peaks |= {name: tensor for name, tensor in sides.items() if tensor not in peaks.values()}
            peaks[node.name] = node.output[0]
    return peaks


def _operands(graph: onnx.GraphProto, attentions: tuple[Product, ...]) -> dict[str, str]:
    products = {product.node: product for product in attentions}
    nodes: dict[str, str] = {}
    for node in graph.node:
        for side, tensor in enumerate(node.input) if node.name in products else ():
            if not (side == 0 and products[node.name].shares):
                nodes[tensor] = min(nodes.get(tensor, "~"), f"{node.name}:{side}")
    return {name: tensor for tensor, name in nodes.items()}


def _is_product(node: onnx.NodeProto | None, constants: dict[str, onnx.TensorProto]) -> bool:
    return node is not None and node.op_type == "MatMul" and not any(name in constants for name in node.input)
