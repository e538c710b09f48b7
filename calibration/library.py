"""Quantization of single ONNX graphs, by the rules that bundles are quantized by. `docs/calibration.md` has an example.

Models are ModelProto objects that hold their weights.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from edgeseg.errors import BuildError, InputError

from .fp16 import to_half
from .gather import PILOTS, Gatherer
from .integers import KINDS
from .islands import wide_stream
from .net import Net
from .observe import observed
from .opset import raise_opset
from .qdq import insert
from .ranges import GraphRanges
from .sites import find_sites, require_sites
from .weights import Array, WeightReader

Feed = Mapping[str, npt.NDArray[np.generic]]


def calibrate_graph(model: onnx.ModelProto, feeds: Iterable[Feed]) -> GraphRanges:
    """Run inputs through an fp32 graph on onnxruntime's CPU, and find the ranges of what its layers read.

    Args:
        model: fp32.
        feeds: input name → array, once for every run; read one by one.

    Raises:
        BuildError: the graph has no layers to quantize, or a tensor holds NaN. InputError: there are no feeds.
    """
    net = _net(model)
    sites = require_sites(find_sites(net.model), net.name)
    rest = iter(feeds)
    first = list(itertools.islice(rest, PILOTS))
    if not first:
        raise InputError(f"calibrate the graph {net.name}", "there are no inputs to run", "give some dozens")
    gatherer = Gatherer(net, sites, len(first))
    with tempfile.TemporaryDirectory() as folder:
        session, names = _session(net, Path(folder))
        for feed in first:
            gatherer.pilot(_run(session, names, feed))
        gatherer.settle()
        for feed in itertools.chain(first, rest):
            gatherer.add(_run(session, names, feed))
    return gatherer.ranges()


def insert_qdq(
    model: onnx.ModelProto, ranges: GraphRanges, precision: str = "int8", leave_out: Collection[str] = ()
) -> onnx.ModelProto:
    """A quantized copy of an fp32 graph, with an fp32 body.

    Args:
        model: fp32.
        ranges: of `calibrate_graph` for this graph.
        precision: "int8", or "fp8", which raises the opset to 19.
        leave_out: names of nodes that are not quantized.

    Raises:
        BuildError: the ranges are of another graph, or the precision is unknown.
    """
    if precision not in KINDS:
        raise BuildError(f"quantize to {precision}", f"there are {', '.join(KINDS)}", "choose one of these")
    net = _net(model)
    if precision == "fp8":
        raise_opset(net)
    insert(net, ranges, precision, leave_out)
    _fill(net)
    return net.model


def half_body(model: onnx.ModelProto, ranges: GraphRanges | None = None) -> onnx.ModelProto:
    """A copy whose body and scales are fp16, of opset 19, with fp32 inputs and outputs: for TensorRT from 10 on.

    Args:
        model: fp32, or the result of `insert_qdq`.
        ranges: of the fp32 graph: where its residual stream leaves fp16's safe range, it stays fp32.
    """
    net = _net(model)
    raise_opset(net)
    to_half(net.model, net, _Inline(), net.name, wide_stream(net.graph, ranges.peaks) if ranges else ())
    return net.model


def _net(model: onnx.ModelProto) -> Net:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return Net(copy, WeightReader([]), model.graph.name or "graph")


def _fill(net: Net) -> None:
    """Put the weights into the model."""
    filled = [_Inline().tensor(tensor.name, net.read(tensor)) for tensor in net.graph.initializer]
    del net.graph.initializer[:]
    net.graph.initializer.extend(filled)


class _Inline:
    """Weights that stay in the model."""

    def tensor(self, name: str, array: Array, dtype: npt.DTypeLike | None = None) -> TensorProto:
        return numpy_helper.from_array(np.asarray(array, dtype), name)


def _session(net: Net, folder: Path) -> tuple[Any, dict[str, str]]:
    """An onnxruntime session of the graph that also gives its sites, and what its outputs are of."""
    import onnxruntime

    model, names = observed(net.model, find_sites(net.model))
    path = folder / "observed.onnx"
    onnx.save(model, path, save_as_external_data=True, location="observed.bin")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]), names


def _run(session: Any, names: Mapping[str, str], feed: Feed) -> dict[str, npt.NDArray[np.float32]]:
    arrays = session.run(list(names), dict(feed))
    return dict(zip(names.values(), arrays, strict=True))
