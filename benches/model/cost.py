"""Counts a graph: parameters, multiply-accumulates, element operations, bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnx import TensorProto

from .operators import ELEMENTWISE, KINDS, MACS, MOVES, REDUCING, node_macs, product_kind
from .shapes import Shapes, node_type, read_shapes

_WHOLE = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.UINT64, TensorProto.UINT32)


@dataclass(frozen=True)
class OperatorCost:
    """All nodes of one operator."""

    operator: str
    nodes: int
    macs: int
    element_operations: int


@dataclass(frozen=True)
class GraphCost:
    """A graph.

    Attributes:
        parameters: stored numbers but shapes and indices; tables that were computed at export count as they are stored.
        weights_bytes: all that is stored.
        io_bytes: inputs and outputs of the graph.
        macs: one of `KINDS` → multiply-accumulates.
        operators: every operator of the graph, by name.
        uncounted: operators whose cost is not known here, with how many nodes; then `macs` is a lower bound.
    """

    parameters: int
    weights_bytes: int
    io_bytes: int
    macs: dict[str, int]
    operators: tuple[OperatorCost, ...]
    uncounted: dict[str, int]

    @property
    def total_macs(self) -> int:
        """Of all kinds."""
        return sum(self.macs.values())

    @property
    def element_operations(self) -> int:
        """Of all operators."""
        return sum(operator.element_operations for operator in self.operators)

    @property
    def least_bytes(self) -> int:
        """What must be moved at least: every weight, input and output once; what lies between may stay in caches."""
        return self.weights_bytes + self.io_bytes

    @property
    def intensity(self) -> float:
        """Floating-point operations (two per multiply-accumulate) per byte of `least_bytes`: an upper bound."""
        return 2 * self.total_macs / max(self.least_bytes, 1)


def count(path: Path, extents: Mapping[str, int]) -> GraphCost:
    """Count a graph file. `extents`: of its dynamic axes, by name."""
    return count_shapes(read_shapes(path, extents))


def count_shapes(found: Shapes) -> GraphCost:
    """The same of a graph in memory."""
    nodes, elements, uncounted = Counter[str](), Counter[str](), Counter[str]()
    by_kind, by_operator = Counter[str](), Counter[str]()
    for node in found.nodes:
        kind = node_type(node)
        nodes[kind] += 1
        counted = None
        if kind in MACS:
            counted = node_macs(kind, node, found)
            if counted is not None:
                by_operator[kind] += counted
                by_kind[product_kind(kind, node, found)] += counted
        elif kind in ELEMENTWISE or kind in REDUCING:
            counted = found.elements(node.output[0] if kind in ELEMENTWISE else node.input[0])
            elements[kind] += counted or 0
        if counted is None and kind not in MOVES:
            uncounted[kind] += 1
    stored = [tensor for tensor in found.weights if tensor.data_type not in _WHOLE]
    return GraphCost(
        sum(found.elements(tensor.name) or 0 for tensor in stored),
        sum(found.size_bytes(tensor.name) for tensor in found.weights),
        sum(found.size_bytes(name) for name in (*found.inputs, *found.outputs)),
        {kind: by_kind[kind] for kind in KINDS},
        tuple(OperatorCost(name, nodes[name], by_operator[name], elements[name]) for name in sorted(nodes)),
        dict(sorted(uncounted.items())),
    )
