"""A graph that also gives out the tensors to be quantized."""

from __future__ import annotations

import onnx
from onnx import helper

from .graph import FLOAT
from .sites import Sites

_PEAK = "edgeseg_peak"


def observed(model: onnx.ModelProto, sites: Sites) -> tuple[onnx.ModelProto, dict[str, str]]:
    """A copy of `model` with more outputs, and what they are of: output → name of a site or peak.

    A site's tensor comes whole; of a peak's tensor only the largest magnitude leaves the graph.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    inputs, results = ({value.name for value in side} for side in (model.graph.input, model.graph.output))
    names: dict[str, str] = {}
    for site in sites.layers:
        output = site.tensor
        if output in inputs:
            output = f"{_PEAK}_copy_{len(names)}"
            copy.graph.node.append(helper.make_node("Identity", [site.tensor], [output]))
        names[output] = site.name
    for name, tensor in sites.peaks.items():
        output = f"{_PEAK}_{len(names)}"
        copy.graph.node.append(helper.make_node("Abs", [tensor], [f"{output}_abs"]))
        copy.graph.node.append(helper.make_node("ReduceMax", [f"{output}_abs"], [output], keepdims=0))
        names[output] = name
    for output in names.keys() - results:
        copy.graph.output.append(helper.make_tensor_value_info(output, FLOAT, None))
    return copy, names
