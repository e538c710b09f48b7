"""What the graphs of `ptq.py` are worth: features and masks against fp32's, and which of their products are integer."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.engines.onnxruntime import FLOAT_PRODUCTS, INTEGER_PRODUCTS
from edgeseg.errors import BuildError

from . import inputs
from .mobile_sam import SIZE, Masks, overlap, photo
from .quantizers import MODEL, PHOTOS, PRODUCTS, cpu_file, typed_file
from .result import same
from .side import Array, Run

Counts = dict[str, dict[str, int]]
WEIGHT_INPUT = {"QLinearMatMul": 3, "QGemm": 3, "QLinearConv": 3}  # 1 for all others
TARGET = "SM89"


def judge(work: Path, weights: Path, photos: Sequence[Path], names: Iterable[str]) -> dict[str, Any]:
    """Cosine, masks and integer products of each tool's graph.

    Args:
        work: holds the graphs.
        weights: the checkpoint, for the mask decoder.
        photos: none of them seen in calibration.
        names: of the tools.
    """
    masks, read = Masks(weights), [photo(path) for path in photos]
    reference = [_features(work / MODEL, image) for image, _ in read]
    wanted = [masks(features, size) for features, (_, size) in zip(reference, read, strict=True)]
    rows = {}
    for name in names:
        found = [_features(work / cpu_file(name), image) for image, _ in read]
        alike = [same(ours, theirs) for ours, theirs in zip(found, reference, strict=True)]
        cosines = [each["value"] for each in alike if each is not None]
        made = [masks(features, size) for features, (_, size) in zip(found, read, strict=True)]
        shared = [overlap(ours, theirs) for ours, theirs in zip(made, wanted, strict=True)]
        rows[name] = {
            "cosine_mean": float(np.mean(cosines)),
            "cosine_worst": min(cosines),
            "mask_iou": float(np.mean(shared)),
            "mask_iou_worst": min(shared),
            "cpu": on_cpu(work / cpu_file(name)),
            **on_rtx(work / typed_file(name)),
        }
    return rows


def in_onnxruntime(work: Path, *, file: str) -> Run:
    """A graph with onnxruntime's own settings but for the number of threads, on the first calibration photo."""
    session = _session(work / file)
    image = np.load(work / PHOTOS, mmap_mode="r")[:1].copy()
    return lambda: _run(session, image)


def on_cpu(file: Path) -> Counts:
    """Products with a weight that onnxruntime's CPU computes in integers, of how many, after all its optimisations."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        graph = onnx.load(options.optimized_model_filepath).graph
    counts: Counts = {kind: {"integer": 0, "all": 0} for kind in ("gemm", "conv")}
    for node in _weighted(graph):
        kind = INTEGER_PRODUCTS.get(node.op_type) or FLOAT_PRODUCTS[node.op_type]
        counts[kind]["all"] += 1
        counts[kind]["integer"] += node.op_type in INTEGER_PRODUCTS
    return counts


def on_rtx(file: Path) -> dict[str, Any]:
    """The same for NVIDIA's compiler, of the nodes as they are in the file; `rtx` is None where it refuses the file."""
    import onnx

    graph = onnx.load(file).graph
    try:
        layers = _compiled(file)
    except (BuildError, ImportError) as error:
        return {"rtx": None, "rtx_refused": str(error).replace(str(file), file.name)[:300]}
    made = {node for layer in layers if layer.inputs[:1] == ("Int8",) for node in layer.nodes}
    wide = Counter("conv" if node.op_type == "Conv" else "gemm" for node in _weighted(graph))
    integer = Counter("conv" if node.op_type == "Conv" else "gemm" for node in _weighted(graph) if node.name in made)
    return {"rtx": {kind: {"integer": integer[kind], "all": count} for kind, count in sorted(wide.items())}}


def _weighted(graph: Any) -> Iterator[Any]:
    """Products with a constant, as it is or behind DequantizeLinear."""
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    for node in graph.node:
        if node.op_type in ("DequantizeLinear", "QuantizeLinear", "Transpose") and node.input[0] in constants:
            constants.add(node.output[0])
        position = WEIGHT_INPUT.get(node.op_type, 1)
        known = {*INTEGER_PRODUCTS, *FLOAT_PRODUCTS, *PRODUCTS}
        if node.op_type in known and len(node.input) > position and node.input[position] in constants:
            yield node


def _compiled(file: Path) -> list[Any]:
    import tensorrt_rtx

    from edgeseg.engines.trt_network import Options, compile_graph
    from edgeseg.schema import GraphSpec, TensorSpec

    def adjust(config: Any) -> None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(tensorrt_rtx.ComputeCapability, TARGET), 0)

    image = TensorSpec("image", "float32", (1, 3, SIZE, SIZE))
    spec = GraphSpec("encoder", "int8", (SIZE, SIZE), file.name, (), (image,), ())
    layers: list[Any] = compile_graph(tensorrt_rtx, file, spec, Options(adjust=adjust), lambda *_: None).layers
    return layers


def _features(file: Path, image: Array) -> Array:
    return _run(_session(file), image)


def _run(session: Any, image: Array) -> Array:
    found: Array = session.run(None, {session.get_inputs()[0].name: image})[0]
    return found


def _session(file: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = inputs.threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
