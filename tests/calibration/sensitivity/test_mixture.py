"""Graphs in which each block has the precision that the mixture says, and no other."""

import onnx
import pytest
from onnx import TensorProto

from edgeseg.calibration.sensitivity.blocks import block_key
from edgeseg.calibration.sensitivity.mixture import Mixer, Mixture
from edgeseg.calibration.weights import WeightWriter
from edgeseg.errors import BuildError
from tests.calibration.sensitivity.toy import CANVAS, make, setup_of

pytestmark = pytest.mark.onnx

FIRST, SECOND, THIRD = (f"sam/blocks.{index}" for index in range(3))


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixture")
    return setup_of(make(folder / "toy.bundle"), folder / "photos")


def graph(setup, mixture, folder, kind="int8"):
    """The ONNX graph of sam, types inferred."""
    with WeightWriter(folder / "w.bin") as writer:
        made = Mixer(setup.bundle, kind, setup.ranges).make(setup.bundle.graph("sam", "fp32", CANVAS), mixture, writer)
    (folder / "m.onnx").write_bytes(made.model.SerializeToString())
    model = onnx.load(folder / "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    return onnx.shape_inference.infer_shapes(model).graph


def products(graph):
    """Block → whether its products read dequantized weights, and the types of their results."""
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    found: dict[str, set] = {}
    for node in graph.node:
        if node.op_type == "MatMul":
            kind = (node.input[1].endswith("_dequantized"), types[node.output[0]])
            found.setdefault(block_key("sam", node.name), set()).add(kind)
    return found


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_only_the_chosen_blocks_are_quantized(setup, tmp_path, kind):
    found = products(graph(setup, Mixture(frozenset({SECOND})), tmp_path, kind))
    assert found == {FIRST: {(False, 1)}, SECOND: {(True, 1)}, THIRD: {(False, 1)}}


def test_only_the_chosen_blocks_compute_in_half(setup, tmp_path):
    found = products(graph(setup, Mixture(half=frozenset({FIRST})), tmp_path))
    assert found == {FIRST: {(False, 10)}, SECOND: {(False, 1)}, THIRD: {(False, 1)}}


def test_quantized_and_half_go_together(setup, tmp_path):
    found = products(graph(setup, Mixture(frozenset({FIRST, THIRD}), frozenset({FIRST, SECOND})), tmp_path))
    assert found == {FIRST: {(True, 10)}, SECOND: {(False, 10)}, THIRD: {(True, 1)}}


def test_inputs_and_outputs_stay_fp32(setup, tmp_path):
    made = graph(setup, Mixture(frozenset({FIRST}), frozenset({FIRST, SECOND, THIRD, "sam/rest"})), tmp_path)
    assert {v.type.tensor_type.elem_type for v in (*made.input, *made.output)} == {TensorProto.FLOAT}


def test_ranges_of_other_weights_are_refused(setup, tmp_path):
    other = setup_of(make(tmp_path / "other.bundle", spoilt=2), tmp_path / "photos")
    mixer, spec = Mixer(setup.bundle, "int8", other.ranges), setup.bundle.graph("sam", "fp32", CANVAS)
    with WeightWriter(tmp_path / "w.bin") as writer, pytest.raises(BuildError, match="other weights than the bundle"):
        mixer.make(spec, Mixture(frozenset({FIRST})), writer)


def test_equal_mixtures_have_one_name():
    assert Mixture(frozenset({"b", "a"})).name == Mixture(frozenset({"a", "b"})).name != Mixture(frozenset({"a"})).name
    assert Mixture(frozenset({"a"})).name != Mixture(half=frozenset({"a"})).name
