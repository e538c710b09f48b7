"""What NVIDIA's compiler makes of quantized graphs, ahead of time for a GPU that need not be there."""

from __future__ import annotations

import re
import shutil

import pytest

from edgeseg.schema import size_text

pytestmark = [pytest.mark.torch, pytest.mark.onnx, pytest.mark.tensorrt]

KINDS = {"int8": "Int8", "fp8": "FP8"}
TARGETS = [("int8", "SM89"), ("fp8", "SM89")]
OTHERS = [pytest.param(*one, marks=pytest.mark.slow) for one in [("int8", "SM86"), ("fp8", "SM120")]]


def layers(path, spec, target):
    """The layers of one graph's engine."""
    import tensorrt_rtx

    from edgeseg.engines.trt_network import Options, compile_graph

    def adjust(config):
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(tensorrt_rtx.ComputeCapability, target), 0)

    return compile_graph(tensorrt_rtx, path, spec, Options(adjust=adjust), lambda *_: None).layers


def quantized(bundle, precision):
    """The bundle with graphs of the precision, calibrated on its reference inputs."""
    from edgeseg.bundle import Bundle
    from edgeseg.calibration.calibrate import calibrate
    from edgeseg.calibration.photos import reference_photos
    from edgeseg.calibration.quantize import RANGES_FILE, quantize_calibrated
    from edgeseg.calibration.ranges import load_ranges

    if precision in bundle.precisions():
        return bundle
    known = RANGES_FILE in bundle.manifest.files
    ranges = load_ranges(bundle.file(RANGES_FILE)) if known else calibrate(bundle, reference_photos(bundle), quiet)
    quantize_calibrated(bundle, precision, ranges, quiet)
    return Bundle.open(bundle.path)


def quiet(_done, _total):
    pass


ENCODERS = ("sam", "clip_trunk")
VALUES = re.compile(r"/pixel_decoder/transformer/.*(value_proj|output_proj|linear1|linear2)/MatMul")

LEAST_TOKENS = {"int8": 0, "fp8": 16}
"""Attentions of fp8 over this many tokens or fewer are not fused; the networks of full size have hundreds."""


def expected(bundle, name, canvas):
    """Names of the products with a weight but for the patch embedding, of the head's those that are quantized; and the
    number of attentions."""
    from edgeseg.calibration.tap import load_net

    net = load_net(bundle, bundle.graph(name, "fp32", canvas))
    weights = {tensor.name: tensor for tensor in net.graph.initializer}
    products = [node for node in net.graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    matrices = {node.name for node in products if len(weights[node.input[1]].dims) == 2}
    if name == "head":
        matrices = {node for node in matrices if VALUES.search(node)}
    return matrices, sum(node.op_type == "Softmax" for node in net.graph.node)


def check(bundle, name, precision, target, canvas):
    spec = bundle.graph(name, precision, canvas)
    found = layers(bundle.graph_files(spec), spec, target)
    products, attentions = expected(bundle, name, canvas)
    kind = KINDS[precision]
    made = {node for layer in found if layer.kind == "gemm" and layer.inputs[0] == kind for node in layer.nodes}
    assert products
    assert products - made == set()
    if name == "head":
        assert {node for node in made if node.endswith("/MatMul")} == products
    tokens = spec.outputs[-1].shape[1]
    # the tail's mask tokens attend to two things at once, the head's queries to what changes with the image
    if name in ENCODERS and tokens > LEAST_TOKENS[precision]:
        fused = [layer for layer in found if "_gemm_mha" in layer.name]
        assert len(fused) == attentions
        if precision == "fp8":
            assert all({"FP8"} <= set(layer.inputs) for layer in fused)


@pytest.fixture(scope="module")
def small(small_bundle, tmp_path_factory):
    """Gives a copy of the small bundle with graphs of a precision."""
    from edgeseg.bundle import Bundle

    made = {}

    def give(like, precision):
        if like not in made:
            copy = shutil.copytree(small_bundle(like).path, tmp_path_factory.mktemp(f"eight-{like}") / "small.bundle")
            made[like] = Bundle.open(copy)
        made[like] = quantized(made[like], precision)
        return made[like]

    return give


@pytest.mark.parametrize(("precision", "target"), [*TARGETS, *OTHERS])
@pytest.mark.parametrize("name", ["sam", "clip_trunk", "clip_tail", "head"])
@pytest.mark.parametrize("like", ["b", pytest.param("l", marks=pytest.mark.slow)])
def test_every_weighted_product_is_of_eight_bits_and_every_attention_one_kernel(small, like, name, precision, target):
    bundle = small(like, precision)
    check(bundle, name, precision, target, bundle.manifest.canvases[0])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "fp8"])
@pytest.mark.parametrize("name", ["sam", "clip_trunk", "head"])
def test_the_same_at_full_size(full_bundle, name, precision):
    bundle = quantized(full_bundle("b")[0], precision)  # of L the calibration alone takes minutes
    canvas = (640, 640)
    assert size_text(canvas) in bundle.manifest.reference
    check(bundle, name, precision, "SM89", canvas)


def test_a_product_that_is_left_out_is_noticed(small):
    """The yardstick itself: one layer in fp16 must not pass."""
    from edgeseg.bundle import Bundle
    from edgeseg.calibration.quantize import RANGES_FILE, quantize_calibrated
    from edgeseg.calibration.ranges import load_ranges

    bundle = small("b", "int8")
    ranges = load_ranges(bundle.file(RANGES_FILE))
    quantize_calibrated(bundle, "int8", ranges, quiet, {"clip_trunk": {"/resblocks.0/mlp/c_fc/MatMul"}})
    with pytest.raises(AssertionError, match="c_fc"):
        check(Bundle.open(bundle.path), "clip_trunk", "int8", "SM89", bundle.manifest.canvases[0])
