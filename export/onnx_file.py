"""A network becomes an ONNX file: traced, folded, named, its weights in one file that all canvases of a graph share.

The one place that knows torch's exporter. It is the TorchScript-based one, on purpose: it writes opset 17, which every
TensorRT from 8.6 on reads, keeps the LayerNormalization operator and names nodes by module path, by which precision
rules find them.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import torch
from torch import Tensor

from edgeseg.schema import GraphSpec, Size, TensorSpec, size_text

from .graphs import GraphPlan
from .nets.fixed import fixing

OPSET = 17
IR_VERSION = 8  # of opset 17; TensorRT 8.6 knows no newer one
HELD_BYTES = 1 << 20
ALIGNMENT = 4096  # of a weight in its file, so that a runtime can map it


class WeightFile:
    """The weights of all canvases of one graph, each stored once.

    Args:
        path: the file to write; its name is what the ONNX files refer to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[bytes, tuple[int, int]] = {}
        self._file = path.open("wb")

    def add(self, data: bytes) -> tuple[int, int]:
        """Store `data` unless its equal is there; returns offset and length."""
        key = hashlib.sha256(data).digest()
        if key not in self._places:
            self._file.write(b"\0" * (-self._file.tell() % ALIGNMENT))
            self._places[key] = (self._file.tell(), len(data))
            self._file.write(data)
        return self._places[key]

    def close(self) -> None:
        self._file.close()


def export_graph(
    plan: GraphPlan, example: Mapping[str, Tensor], file: Path, weights: WeightFile, relative: str
) -> tuple[GraphSpec, dict[str, Tensor]]:
    """Write `plan` as ONNX with external weights.

    Args:
        plan: the network and the names of its tensors.
        example: input name → tensor; its extents are the graph's, but for the dynamic axes.
        file: the .onnx file to write, in the folder of `weights`.
        weights: where the weights go.
        relative: the bundle path of the folder.

    Returns:
        The graph's entry for the bundle, fp32, and torch's outputs for the example, by name.
    """
    inputs = tuple(example[name] for name in plan.inputs)
    with fixing(plan.network, *inputs) as outputs:
        proto, held = _without_weights(_trace(plan, inputs))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    proto = _folded(proto)
    _clean(proto, plan)
    _state_shapes(proto, plan, outputs)
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(proto, strict_mode=True))
    _restore_weights(proto, held)
    _name_weights(proto)
    parameters = _externalise(proto, weights)
    file.write_bytes(proto.SerializeToString(deterministic=True))
    spec = GraphSpec(
        name=plan.name,
        precision="fp32",
        canvas=plan.canvas,
        file=f"{relative}/{file.name}",
        data=(f"{relative}/{weights.path.name}",),
        inputs=tuple(_spec(value) for value in proto.graph.input),
        outputs=tuple(_spec(value) for value in proto.graph.output),
        axes=plan.axes,
        parameters=parameters,
    )
    return spec, dict(zip(plan.outputs, outputs, strict=True))


def graph_file_name(name: str, canvas: Size | None) -> str:
    """The graph "sam" at (640, 864) is "sam-640x864.onnx"."""
    return f"{name}-{size_text(canvas)}.onnx"


def _trace(plan: GraphPlan, inputs: Sequence[Tensor]) -> onnx.ModelProto:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # of this exporter; see the module's docstring
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]  # shapes are constants, as is meant
        warnings.filterwarnings("ignore", message=".*Constant folding.*")
        torch.onnx.export(
            plan.network,
            tuple(inputs),
            buffer,  # type: ignore[arg-type]  # any file will do
            opset_version=OPSET,
            dynamo=False,
            input_names=plan.inputs,
            output_names=plan.outputs,
            dynamic_axes=plan.dynamic or None,
        )
    return onnx.load_model_from_string(buffer.getvalue())


def _without_weights(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, onnx.TensorProto]]:
    """The graph with its large weights as inputs, and those weights: folding and checking copy the graph many times."""
    held = {tensor.name: tensor for tensor in proto.graph.initializer if len(tensor.raw_data) >= HELD_BYTES}
    small = [tensor for tensor in proto.graph.initializer if tensor.name not in held]
    shell = onnx.ModelProto(ir_version=IR_VERSION, producer_name="edgeseg", opset_import=proto.opset_import)
    shell.graph.node.extend(_without_aliases(proto))
    shell.graph.initializer.extend(small)
    shell.graph.input.extend(proto.graph.input)
    shell.graph.output.extend(proto.graph.output)
    for tensor in held.values():
        shell.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return shell, held


def _without_aliases(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes but for the Identity nodes by which the exporter gives equal weights one place."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    alias: dict[str, str] = {}
    nodes = []
    for node in proto.graph.node:
        if node.op_type == "Identity" and node.input[0] in weights:
            alias[node.output[0]] = node.input[0]
            continue
        for place, name in enumerate(node.input):
            node.input[place] = alias.get(name, name)
        nodes.append(node)
    return nodes


def _restore_weights(proto: onnx.ModelProto, held: dict[str, onnx.TensorProto]) -> None:
    inputs = [value for value in proto.graph.input if value.name not in held]
    used = {name for node in proto.graph.node for name in node.input}
    proto.graph.initializer.extend(tensor for name, tensor in held.items() if name in used)
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)


def _folded(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without what is constant; each round makes shapes known on which the next one works."""
    nodes = -1
    while nodes != len(proto.graph.node):
        nodes = len(proto.graph.node)
        model = gs.import_onnx(onnx.shape_inference.infer_shapes(proto, data_prop=True))
        proto = gs.export_onnx(model.fold_constants().cleanup().toposort())
    return proto


def _clean(proto: onnx.ModelProto, plan: GraphPlan) -> None:
    """Drop what differs from run to run or says where the code lay: traces, doc strings, intermediate shapes."""
    proto.ir_version, proto.producer_name, proto.producer_version = IR_VERSION, "edgeseg", ""
    proto.graph.name, proto.graph.doc_string = plan.name, ""
    del proto.graph.value_info[:]
    for node in proto.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]


def _state_shapes(proto: onnx.ModelProto, plan: GraphPlan, outputs: Sequence[Tensor]) -> None:
    """Every extent of the outputs as it is known: the exporter loses some behind operators like TopK."""
    for value, tensor in zip(proto.graph.output, outputs, strict=True):
        names = plan.dynamic.get(value.name, {})
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if axis in names:
                dim.dim_param = names[axis]
            else:
                dim.dim_value = int(tensor.shape[axis])


def _name_weights(proto: onnx.ModelProto) -> None:
    """Name a weight by the first node that reads it: "/blocks.0/attn/q/MatMul" → "blocks.0.attn.q.MatMul.1"."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    names: dict[str, str] = {}
    for node in proto.graph.node:
        for place, name in enumerate(node.input):
            if name in weights:
                names.setdefault(name, f"{node.name.strip('/').replace('/', '.')}.{place}")
            node.input[place] = names.get(name, name)
    for tensor in proto.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)


def _externalise(proto: onnx.ModelProto, weights: WeightFile) -> int:
    """Move weights of 1 KiB and more to the weight file; returns how many numbers the graph's float weights are."""
    parameters = 0
    for tensor in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            parameters += array.size
        data = array.tobytes()
        if len(data) < 1024:
            continue
        offset, length = weights.add(data)
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", weights.path.name), ("offset", str(offset)), ("length", str(length))):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
    return parameters


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
    shape = tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)
    return TensorSpec(value.name, kind, shape)
