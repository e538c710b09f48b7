"""onnxruntime reads the bundle's graphs; its engine of a graph is the graph, or its `cpu` form over the same weights.

onnxruntime's own optimised files were weighed against that: they hold the weights a second time, are tied to one CPU's
instruction set, and save only the seconds that opening a session takes. For an int8 graph one is written all the same,
to be read and thrown away: it says which products onnxruntime really computes in integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
import onnxruntime

from edgeseg.backends.base import Probe
from edgeseg.schema import GraphSpec

from .compiler import Job, Outcome
from .cpu_form import to_cpu_form
from .layers import ATTENTION, Layer
from .progress import Advance

INTEGER_PRODUCTS = {
    "QLinearMatMul": "gemm",
    "MatMulInteger": "gemm",
    "MatMulIntegerToFloat": "gemm",
    "DynamicQuantizeMatMul": "gemm",
    "QGemm": "gemm",
    "QLinearConv": "conv",
    "ConvInteger": "conv",
}
FLOAT_PRODUCTS = {
    "MatMul": "gemm",
    "FusedMatMul": "gemm",
    "Gemm": "gemm",
    "FusedGemm": "gemm",
    "Conv": "conv",
    "FusedConv": "conv",
    "NhwcFusedConv": "conv",
    "MultiHeadAttention": ATTENTION,
    "Attention": ATTENTION,
}
_BLOCKED = "_nchwc"  # a Conv in onnxruntime's own layout is named after its result, and this
_APPENDED = ("/MatMulAddFusion", "_integers")  # to a MatMul's name: by onnxruntime, by `cpu_int8`


class OnnxRuntimeCompiler:
    """See `compiler.Compiler`.

    Args:
        probe: what the backend finds on this machine.
    """

    backend = "onnxruntime"
    in_place = True
    runs_here = True
    typed = True
    bf16 = False

    def __init__(self, probe: Probe) -> None:
        self.device = probe.device or ""
        self.versions = {"onnxruntime": probe.versions.get("onnxruntime", "")}
        self.form = "typed" if self.device.startswith("cuda") else "plain"

    def source(self, graphs: tuple[GraphSpec, ...], spec: GraphSpec) -> GraphSpec:
        """The graph itself."""
        return spec

    def compile(self, job: Job, advance: Advance) -> Outcome:
        """The `cpu` form of a graph, if there is anything to gain, and which products are integer."""
        model = onnx.load(job.source, load_external_data=False)
        original = list(model.graph.node)
        plain = job.spec.precision == "fp32" or job.spec.form == "plain"
        changed = (plain and to_cpu_form(model) > 0) or job.changed
        text = model.SerializeToString(deterministic=True)
        quantized = job.spec.precision == "int8" and any(n.op_type == "DequantizeLinear" for n in original)
        layers = optimized_layers(model, job.source.parent, job.scratch) if quantized else []
        return Outcome(layers, model=text if changed else None)


def optimized_layers(model: onnx.ModelProto, weights: Path, scratch: Path) -> list[Layer]:
    """What onnxruntime makes of a graph before it runs it.

    Args:
        model: the graph, its weights not loaded.
        weights: the folder of its external data.
        scratch: a folder for the optimised file, which is removed again.
    """
    optimized, data = scratch / "optimized.onnx", scratch / "optimized.bin"
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(optimized)
    options.log_severity_level = 3  # it warns that the file is for this machine alone
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights))
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", data.name)
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        graph = onnx.load(optimized, load_external_data=False).graph
    finally:
        optimized.unlink(missing_ok=True)
        data.unlink(missing_ok=True)
    blocked = {f"{name}{_BLOCKED}": node.name for node in model.graph.node for name in node.output}
    return [layer for node in graph.node if (layer := _layer(node, blocked)) is not None]


def _layer(node: onnx.NodeProto, blocked: Mapping[str, str]) -> Layer | None:
    name = blocked.get(node.name, node.name)
    for end in _APPENDED:
        name = name.removesuffix(end)
    if node.op_type in INTEGER_PRODUCTS:
        return Layer(name, INTEGER_PRODUCTS[node.op_type], ("Int8", "Int8"), ("Float",), (name,))
    if node.op_type in FLOAT_PRODUCTS:
        return Layer(name, FLOAT_PRODUCTS[node.op_type], ("Float", "Float"), ("Float",), (name,))
    return None
