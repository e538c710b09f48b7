"""The library on a vision transformer that is not ours: torchvision's, as torch exports it."""

import io
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest

from edgeseg.calibration import calibrate_graph, half_body, insert_qdq, prepare
from edgeseg.calibration.sites import find_sites
from edgeseg.errors import BuildError
from tests.nets import Net

SIZES = {
    "tiny": {"image_size": 64, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 64, "mlp_dim": 128},
    "vit_b_16": {
        "image_size": 224,
        "patch_size": 16,
        "num_layers": 12,
        "num_heads": 12,
        "hidden_dim": 768,
        "mlp_dim": 3072,
    },
}


def exported(name):
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    vit = torchvision.models.VisionTransformer(**SIZES[name], num_classes=40).eval()
    torch.nn.init.normal_(vit.heads.head.weight, std=0.1)
    buffer, size = io.BytesIO(), SIZES[name]["image_size"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            vit, (torch.zeros(1, 3, size, size),), buffer, opset_version=17, dynamo=False, input_names=["image"]
        )
    return onnx.load_model_from_string(buffer.getvalue()), size


def feeds(size, count=3):
    return [
        {"image": np.random.default_rng(i).standard_normal((1, 3, size, size)).astype(np.float32)} for i in range(count)
    ]


def run(model, feed):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, feed)[0]


def cosine(a, b):
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.torch
@pytest.mark.onnx
@pytest.mark.parametrize("name", ["tiny", pytest.param("vit_b_16", marks=pytest.mark.slow)])
def test_every_layer_of_torchvisions_vit_is_found_and_quantized(name):
    model, size = exported(name)
    ready = prepare(model)
    feed = feeds(size, 1)[0]
    expected = run(model, feed)
    assert cosine(expected, run(ready, feed)) > 1 - 1e-6
    depth = SIZES[name]["num_layers"]
    sites = find_sites(ready)
    assert sum(len(site.layers) for site in sites.layers) == 6 * depth
    assert sum(site.norm is not None for site in sites.layers) == 2 * depth
    assert len(sites.attentions) == 2 * depth
    ranges = calibrate_graph(ready, feeds(size))
    assert len(ranges.smoothing) > 0
    for precision, least in (("int8", 0.998), ("fp8", 0.99)):
        quantized = insert_qdq(ready, ranges, precision)
        assert cosine(expected, run(quantized, feed)) > least
        assert cosine(expected, run(half_body(quantized, ranges), feed)) > least


@pytest.mark.torch
@pytest.mark.onnx
@pytest.mark.tensorrt
@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_nvidias_compiler_takes_all_its_layers_in_eight_bits(tmp_path, precision):
    from edgeseg.schema import GraphSpec
    from tests.export.test_fusion_int8 import KINDS, layers

    model, size = exported("tiny")
    ready = prepare(model)
    ranges = calibrate_graph(ready, feeds(size))
    onnx.save(half_body(insert_qdq(ready, ranges, precision), ranges), tmp_path / "vit.onnx")
    found = layers(tmp_path / "vit.onnx", GraphSpec("vit", precision, None, "", (), (), ()), "SM89")
    made = {
        node for layer in found if layer.kind == "gemm" and layer.inputs[0] == KINDS[precision] for node in layer.nodes
    }
    assert {layer.node for site in find_sites(ready).layers for layer in site.layers} <= made
    assert sum("_gemm_mha" in layer.name for layer in found) == 2


def gemm(**attributes):
    net = Net()
    weight = net.weight(16, 32) if attributes.get("transB") else net.weight(32, 16)
    y = net.op("Gemm", "x", weight, net.weight(16), **attributes)
    return net.model({"x": [32, 32]}, {"y": [32, 16]}, {"y": y})


@pytest.mark.onnx
@pytest.mark.parametrize(
    ("attributes", "found"), [({}, 1), ({"transB": 1}, 1), ({"alpha": 0.5}, 0), ({"transA": 1}, 0), ({"beta": 2.0}, 0)]
)
def test_a_plain_gemm_becomes_a_product_and_keeps_its_meaning(attributes, found):
    model = gemm(**attributes)
    ready = prepare(model)
    assert len(find_sites(ready).layers) == found
    feed = {"x": np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32)}
    assert np.allclose(run(model, feed), run(ready, feed), atol=1e-5)


@pytest.mark.onnx
@pytest.mark.parametrize("cut", [True, False])
def test_only_a_wide_product_that_is_cut_becomes_three(cut):
    net = Net()
    y = net.linear("x", 32, 96)
    y = net.reshape(y, 4, 3, 32) if cut else net.op("Sigmoid", y)
    model = net.model({"x": [4, 32]}, {"y": [4, 3, 32] if cut else [4, 96]}, {"y": y})
    ready = prepare(model)
    assert sum(len(site.layers) for site in find_sites(ready).layers) == (3 if cut else 1)
    feed = {"x": np.random.default_rng(0).standard_normal((4, 32)).astype(np.float32)}
    assert np.allclose(run(model, feed), run(ready, feed), atol=1e-5)


@pytest.mark.onnx
def test_an_old_opset_is_refused():
    model = gemm()
    model.opset_import[0].version = 13
    with pytest.raises(BuildError, match="it has opset 13; export it with opset 17"):
        prepare(model)
