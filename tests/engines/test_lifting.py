"""Blocks of a graph in fp32, from the master."""

import numpy as np
import onnx
import onnxruntime
import pytest

from edgeseg.calibration.fp16 import to_half
from edgeseg.calibration.weights import WeightReader, WeightWriter
from edgeseg.engines.lifting import STEM, block_of, blocks_of, boundaries, lift, prune
from edgeseg.engines.making import placed
from tests.engines import blocks
from tests.tiny_bundle import WIDTH

pytestmark = pytest.mark.onnx
X = np.random.default_rng(3).standard_normal((1, 3, *blocks.CANVAS)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("/blocks.3/attn/q/MatMul", "/blocks.3"),
        ("/resblocks.11/Add_1", "/resblocks.11"),
        ("/head/predictor/transformer_ffn_layers.0/linear1/MatMul", "/head/predictor/transformer_ffn_layers.0"),
        ("/input_proj.0.1/Conv", "/input_proj.0.1"),
        ("/patch_embed/proj/Conv", None),
        ("/Add_2.5x", None),
        ("", None),
    ],
)
def test_a_block_is_a_path_up_to_its_first_number(name, block):
    assert block_of(name) == block


def load(bundle, precision):
    spec = bundle.graph("sam", precision, blocks.CANVAS, "plain")
    files = {path.rpartition("/")[2]: bundle.file(path) for path in spec.data}
    return onnx.load(bundle.graph_files(spec), load_external_data=False), files


def run(model, files, folder):
    folder.mkdir(exist_ok=True)
    path = placed(model, list(files.values()), folder)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["sam_1", "sam_2"], {"image_sam": X})


def test_boundaries_are_the_residual_stream_before_and_after_each_block(blocky):
    model, _ = load(blocky(), "fp32")
    found = boundaries(model)
    assert list(found) == [STEM, "/blocks.0", "/blocks.1", "/blocks.2"]
    stem = found.pop(STEM)
    assert set(found.values()) <= set(blocks.residuals(model))
    assert any(stem in node.input and "/blocks.0/" in node.name for node in model.graph.node)


def test_stem_is_what_the_blocks_read_and_no_block_makes(blocky):
    model, _ = load(blocky(), "fp32")
    found = blocks_of(model)
    outside = [node for node in model.graph.node if block_of(node.name) is None]
    stem = {node.op_type for node in outside if found.get(node.output[0]) == STEM}
    assert {"Conv", "Transpose"} <= stem
    assert not {"sam_1", "sam_2"} & set(found)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize(
    "lifted", [("/blocks.0",), ("/blocks.0", "/blocks.2"), ("/blocks.0", "/blocks.1", "/blocks.2")]
)
def test_each_lifted_block_brings_the_result_closer(blocky, tmp_path, precision, lifted):
    bundle = blocky()
    master, weights = load(bundle, "fp32")
    model, files = load(bundle, precision)
    exact = run(master, weights, tmp_path / "w")[1]
    before = np.linalg.norm(run(model, files, tmp_path / "w")[1] - exact)
    assert lift(model, master, weights, lambda node: block_of(node.name) in lifted) > 0
    after = np.linalg.norm(run(model, files, tmp_path / "w")[1] - exact)
    assert after < before * (1 - 0.1 * len(lifted))
    kinds = {n.op_type for n in model.graph.node if block_of(n.name) in lifted}
    assert not kinds & {"QuantizeLinear", "DequantizeLinear"}


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_whole_graph_lifted_is_the_master(blocky, tmp_path, precision):
    bundle = blocky()
    master, weights = load(bundle, "fp32")
    model, files = load(bundle, precision)
    exact = run(master, weights, tmp_path / "w")
    lift(model, master, weights, lambda node: True)
    for found, wanted in zip(run(model, files, tmp_path / "w"), exact, strict=True):
        assert np.array_equal(found, wanted)


def test_a_result_of_the_graph_that_the_next_block_reads_too_is_replaced_for_both(blocky, tmp_path):
    """An fp16 graph casts such a result to fp32 for the outside, and reads it in fp16 itself."""
    bundle = blocky()
    master, weights = load(bundle, "fp32")
    tensor = boundaries(master)["/blocks.1"]
    shape = [1, blocks.TOKENS, WIDTH]
    master.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, shape))
    model = onnx.ModelProto.FromString(master.SerializeToString())
    (tmp_path / "half").mkdir()
    with WeightWriter(tmp_path / "half" / "sam.bin") as writer:
        to_half(model, WeightReader(list(weights.values())), writer, "sam")
    assert tensor in {node.output[0] for node in model.graph.node if node.op_type == "Cast"}
    lift(model, master, weights, lambda node: block_of(node.name) == "/blocks.1")
    names = [node.name for node in model.graph.node if block_of(node.name) == "/blocks.1"]
    assert sorted(names) == sorted(n.name for n in master.graph.node if block_of(n.name) == "/blocks.1")
    run(model, {"sam.bin": tmp_path / "half" / "sam.bin"}, tmp_path / "w")


def test_master_whose_tensors_have_other_names_is_not_used(blocky):
    bundle = blocky()
    master, weights = load(bundle, "fp32")
    model, _ = load(bundle, "fp16")
    for node in master.graph.node:
        node.input[:] = [f"{name}_other" if name in blocks.residuals(model) else name for name in node.input]
    before = model.SerializeToString()
    assert lift(model, master, weights, lambda node: block_of(node.name) == "/blocks.1") == 0
    assert model.SerializeToString() == before


def test_operator_that_changed_between_opsets_is_not_used(blocky):
    bundle = blocky()
    master, weights = load(bundle, "fp32")
    model, _ = load(bundle, "fp16")
    model.opset_import[0].version = 18  # from which on ReduceMean takes its axes as an input
    node = next(n for n in master.graph.node if "/blocks.1/" in n.name and n.op_type == "Sigmoid")
    node.CopyFrom(onnx.helper.make_node("ReduceMean", list(node.input), list(node.output), node.name, axes=[1]))
    assert lift(model, master, weights, lambda node: block_of(node.name) == "/blocks.1") == 0


def test_pruning_keeps_what_an_output_depends_on(blocky):
    model, _ = load(blocky(), "fp32")
    del model.graph.output[1]  # sam_2, and with it the last block
    prune(model)
    assert "/blocks.2" not in {block_of(node.name) for node in model.graph.node}
    read = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= read
