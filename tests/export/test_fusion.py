"""NVIDIA's compiler on the exported graphs, ahead of time for a GPU that need not be there."""

import itertools

import onnx
import pytest

from edgeseg.schema import size_text

pytestmark = [pytest.mark.torch, pytest.mark.onnx, pytest.mark.tensorrt, pytest.mark.slow]

TARGET = "sm89"
CANVAS = (640, 640)
GRAPHS = ["sam", "clip_trunk", "head", "clip_tail", "score", "text"]

# SAM has 12 attentions. In the trunk's surgery blocks both streams attend: 9 + 7 of B, 18 + 14 of L.
ATTENTIONS = {("b", "sam"): 12, ("b", "clip_trunk"): 9 + 7, ("l", "clip_trunk"): 18 + 14}
SAME = ("l", "sam")  # as B's, and the slowest to compile


@pytest.fixture(scope="module")
def compiled(full_bundle, tmp_path_factory):
    """Gives the counts of one graph's fp16 engine."""
    from edgeseg.backends import get_backend
    from edgeseg.bundle import Bundle
    from edgeseg.calibration.quantize import quantize_bundle
    from edgeseg.engines.compiler import Job
    from edgeseg.engines.layers import summary
    from edgeseg.engines.tensorrt_rtx import TensorRTRTXCompiler

    folder, halves = tmp_path_factory.mktemp("engines"), {}
    compiler = TensorRTRTXCompiler(get_backend("tensorrt_rtx").probe(), (TARGET,))

    def give(variant, name):
        if variant not in halves:
            bundle = full_bundle(variant)[0]
            quantize_bundle(bundle, lambda *_: None)
            halves[variant] = Bundle.open(bundle.path)
        bundle = halves[variant]
        spec = next(
            g for g in bundle.manifest.graphs if (g.name, g.precision) == (name, "fp16") and g.canvas in (CANVAS, None)
        )
        target = folder / f"{variant}-{name}-{size_text(spec.canvas)}.engine"
        outcome = compiler.compile(Job(bundle.graph_files(spec), spec, target, folder), lambda *_: None)
        size_bytes = target.stat().st_size
        target.unlink()
        return summary(outcome.layers), size_bytes

    return give


@pytest.mark.parametrize(("variant", "name"), [one for one in itertools.product("bl", GRAPHS) if one != SAME])
def test_the_compiler_takes_the_graph_and_fuses_each_attention(compiled, variant, name):
    layers, size_bytes = compiled(variant, name)
    assert layers["layers"] > 0
    assert size_bytes > 1000
    if (variant, name) in ATTENTIONS:
        assert layers["fused_attentions"] == ATTENTIONS[variant, name]


def test_the_sam_of_l_is_the_graph_of_bs(full_bundle):
    """Other weights in the same operators, so that what the compiler makes of one holds for the other."""
    models = []
    for variant in "bl":
        bundle = full_bundle(variant)[0]
        models.append(onnx.load(bundle.graph_files(bundle.graph("sam", "fp32", CANVAS)), load_external_data=False))
    nodes = [[(node.op_type, node.name) for node in model.graph.node] for model in models]
    weights = [{tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer} for model in models]
    assert nodes[0] == nodes[1]
    assert weights[0] == weights[1]
