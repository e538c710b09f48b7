"""Peak memory of CAT-Seg's aggregation at full size: one view, 256 classes, on onnxruntime."""

import pickle
import subprocess
import sys

import pytest
import torch

from edgeseg.export.graphs import GraphPlan
from edgeseg.export.lmseg import PAD_LENGTH, PARTS
from edgeseg.export.nets.aggregation import Aggregation, AggregationConfig
from edgeseg.export.onnx_file import WeightFile, export_graph

pytestmark = [pytest.mark.torch, pytest.mark.onnx, pytest.mark.slow]

RUN = """
import pickle, sys
from pathlib import Path
import numpy as np
from edgeseg.backends import get_backend
from edgeseg.benches.machine.memory import HostMemory

graph, classes = Path(sys.argv[1]), int(sys.argv[2])
spec = pickle.loads(graph.with_suffix(".spec").read_bytes())
session = get_backend("onnxruntime").open(graph, spec)
random = np.random.Generator(np.random.PCG64(0))
shapes = {tensor.name: [classes if axis == "S" else axis for axis in tensor.shape] for tensor in spec.inputs}
feed = {name: session.upload(random.standard_normal(shape, np.float32)) for name, shape in shapes.items()}
memory = HostMemory()
before = memory.peak_bytes()
session.run(feed)
print((memory.peak_bytes() - before) / 2**20)
"""


def peak_mib(folder, parts):
    """By how much a run raises the peak of a process that has opened the graph and has its inputs."""
    config = AggregationConfig()
    net = Aggregation(config).eval().requires_grad_(False)
    net.parts, side = parts, config.swin.grid
    example = {
        "features": torch.randn(1, side**2, config.embedding),
        "guidance_2": torch.randn(1, config.early, 2 * side, 2 * side),
        "guidance_4": torch.randn(1, config.late, 4 * side, 4 * side),
        "picked_text": torch.randn(1, 6, 1, config.embedding),
    }
    dynamic = {"picked_text": {1: "S"}, "logits": {1: "S"}}
    plan = GraphPlan("aggregate", net, None, list(example), ["logits"], dynamic, {"S": (1, 150, PAD_LENGTH)})
    graph, weights = folder / f"{parts}.onnx", WeightFile(folder / f"{parts}.bin")
    spec, _ = export_graph(plan, example, graph, weights, "")
    weights.close()
    graph.with_suffix(".spec").write_bytes(pickle.dumps(spec))
    words = [sys.executable, "-c", RUN, str(graph), str(PAD_LENGTH)]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def test_shares_of_the_classes_halve_the_peak(tmp_path):
    plain, shared = peak_mib(tmp_path, 1), peak_mib(tmp_path, PARTS[False])
    print(f"{plain:.0f} MiB with all classes at once, {shared:.0f} MiB in {PARTS[False]} shares")
    assert shared <= plain / 2
