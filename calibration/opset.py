"""Raises a graph's opset from 17, which TensorRT 8.6 reads, to 19, which knows fp16 scales and fp8.

Between the two only these changed what a graph of ours says: the reductions take their axes as an input, and Split
names its number of parts.
"""

from __future__ import annotations

import numpy as np
import onnx

from edgeseg.errors import BuildError

from .graph import attribute
from .net import Net

TYPED_OPSET = 19
"""fp16 scales need 19; TensorRT 10.3, the one of JetPack 6, reads up to 20."""

IR_VERSION = 9  # of opset 19

_REDUCTIONS = "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSumSquare"


def raise_opset(net: Net) -> None:
    """Make the graph one of opset 19, in place. Raises BuildError for an opset below 17."""
    imports = next(item for item in net.model.opset_import if item.domain in ("", "ai.onnx"))
    if imports.version < 17:
        found = f"it has opset {imports.version}"
        raise BuildError(f"quantize the graph {net.name}", found, "export it with opset 17")
    if imports.version < 18:
        for node in net.graph.node:
            _to_18(net, node)
    imports.version = max(imports.version, TYPED_OPSET)
    net.model.ir_version = max(net.model.ir_version, IR_VERSION)


def _to_18(net: Net, node: onnx.NodeProto) -> None:
    if node.op_type in _REDUCTIONS.split():
        axes = attribute(node, "axes")
        if axes is not None:
            name = net.set_weight(f"{node.output[0]}_axes", np.array(axes.ints, np.int64))
            node.attribute.remove(axes)
            node.input.append(name)
    elif node.op_type == "Split" and len(node.input) == 1:
        node.attribute.append(onnx.helper.make_attribute("num_outputs", len(node.output)))
