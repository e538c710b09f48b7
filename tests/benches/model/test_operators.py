"""Every operator against a count by hand."""

import pytest
from onnx import TensorProto

from edgeseg.benches.model.cost import count_shapes
from edgeseg.benches.model.operators import ELEMENTWISE, MACS, MOVES, REDUCING
from edgeseg.benches.model.shapes import infer
from tests.benches.model.bare import Bare

pytestmark = pytest.mark.onnx

MICROSOFT = {"domain": "com.microsoft"}


def macs(kind, inputs, weights=(), **attributes):
    """(by kind, uncounted) of one node; `inputs` are fed, `weights` stored."""
    net = Bare(opset=attributes.pop("opset", 17))
    names = {f"x{index}": list(shape) for index, shape in enumerate(inputs)}
    found = net.count(names, net.op(kind, *names, *(net.weight(*shape) for shape in weights), **attributes))
    return {key: value for key, value in found.macs.items() if value}, found.uncounted


BY_HAND = {
    "matrix by weight": (macs, ("MatMul", [(5, 7)], [(7, 3)]), {"weights": 5 * 7 * 3}),
    "batch of matrices by one weight": (macs, ("MatMul", [(2, 4, 5, 7)], [(7, 3)]), {"weights": 8 * 5 * 7 * 3}),
    "activations by activations": (macs, ("MatMul", [(2, 4, 5, 7), (2, 4, 7, 5)]), {"activations": 8 * 5 * 7 * 5}),
    "broadcast over the left": (macs, ("MatMul", [(1, 1, 5, 7)], [(6, 7, 3)]), {"weights": 6 * 5 * 7 * 3}),
    "broadcast both ways": (macs, ("MatMul", [(2, 1, 5, 7), (4, 7, 3)]), {"activations": 8 * 5 * 7 * 3}),
    "vector by matrix": (macs, ("MatMul", [(7,)], [(7, 3)]), {"weights": 21}),
    "matrix by vector": (macs, ("MatMul", [(5, 7)], [(7,)]), {"weights": 35}),
    "weight with axes of one": (macs, ("MatMul", [(1, 5, 7)], [(1, 7, 3)]), {"weights": 5 * 7 * 3}),
    "table with a matrix per position": (
        macs,
        ("MatMul", [(2, 4, 6, 6, 8)], [(6, 8, 6)]),
        {"positions": 2 * 4 * 6 * 6 * 8 * 6},
    ),
    "convolution": (macs, ("Conv", [(2, 3, 32, 48)], [(8, 3, 16, 16)]), {"weights": 2 * 8 * 17 * 33 * 3 * 256}),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_products_by_hand(case):
    function, arguments, expected = BY_HAND[case]
    assert function(*arguments) == (expected, {})


def test_stored_left_operand_is_a_weight_too():
    net = Bare()
    found = net.count({"x": [2, 7, 3]}, net.op("MatMul", net.weight(5, 7), "x"))
    assert found.macs == {"weights": 2 * 5 * 7 * 3, "activations": 0, "positions": 0}


def test_strided_padded_and_grouped_convolution():
    found, _ = macs("Conv", [(1, 8, 10, 10)], [(12, 2, 3, 3)], strides=[2, 2], pads=[1, 1, 1, 1], group=4)
    assert found == {"weights": 12 * 5 * 5 * 2 * 9}


def test_transposed_convolution_counts_its_input():
    found, _ = macs("ConvTranspose", [(1, 8, 5, 5)], [(8, 6, 2, 2)], strides=[2, 2])
    assert found == {"weights": 8 * 5 * 5 * 6 * 4}


@pytest.mark.parametrize(("a", "b", "flags"), [((5, 7), (7, 3), {}), ((7, 5), (3, 7), {"transA": 1, "transB": 1})])
def test_gemm_with_and_without_transposes(a, b, flags):
    assert macs("Gemm", [a], [b], **flags)[0] == {"weights": 5 * 7 * 3}


@pytest.mark.parametrize(
    ("equation", "left", "right", "expected"),
    [
        ("bhwc,hkc->bhwk", (2, 6, 5, 8), (6, 9, 8), {"positions": 2 * 6 * 5 * 8 * 9}),
        ("bnc,ck->bnk", (2, 6, 8), (8, 9), {"weights": 2 * 6 * 8 * 9}),
    ],
)
def test_einsum_multiplies_all_its_axes(equation, left, right, expected):
    assert macs("Einsum", [left], [right], equation=equation) == (expected, {})


def test_einsum_of_three_is_left_uncounted_and_named():
    assert macs("Einsum", [(2, 3), (3, 4), (4, 5)], equation="ab,bc,cd->ad") == ({}, {"Einsum": 1})


@pytest.mark.parametrize(("queries", "keys"), [(6, 6), (6, 10)])
def test_contrib_attention_counts_both_products(queries, keys):
    shapes = [(2, queries, 32), (2, keys, 32), (2, keys, 48)]
    found = macs("MultiHeadAttention", shapes, num_heads=4, **MICROSOFT)
    assert found == ({"activations": 2 * queries * keys * (32 + 48)}, {})


def test_contrib_attention_with_heads_apart():
    shapes = [(2, 6, 32), (2, 4, 10, 8), (2, 4, 10, 8)]
    found = macs("MultiHeadAttention", shapes, num_heads=4, **MICROSOFT)
    assert found == ({"activations": 2 * 6 * 10 * (32 + 32)}, {})


def test_contrib_attention_packed_into_one_tensor_is_left_uncounted():
    assert macs("MultiHeadAttention", [(2, 6, 4, 3, 8)], num_heads=4, **MICROSOFT)[1]


def test_attention_of_onnx_itself():
    shapes = [(2, 4, 6, 8), (2, 4, 10, 8), (2, 4, 10, 8)]
    assert macs("Attention", shapes, opset=23) == ({"activations": 2 * 4 * 6 * 10 * (8 + 8)}, {})


def test_fused_product_with_transposes():
    found = macs("FusedMatMul", [(4, 7, 5)], [(3, 7)], transA=1, transB=1, **MICROSOFT)
    assert found == ({"weights": 4 * 5 * 7 * 3}, {})


def test_quantised_weight_counts_like_any_other():
    net = Bare()
    scale, zero = net.weight(3), net.weight(3, kind=TensorProto.INT8)
    weight = net.op("DequantizeLinear", net.weight(7, 3, kind=TensorProto.INT8), scale, zero, axis=1)
    found = net.count({"x": [5, 7]}, net.op("MatMul", "x", weight))
    assert found.macs == {"weights": 105, "activations": 0, "positions": 0}
    assert found.parameters == 21 + 3 + 3
    assert found.weights_bytes == 21 + 12 + 3


def test_integer_products():
    net = Bare()
    a, b = net.weight(5, 7, kind=TensorProto.UINT8), net.weight(7, 3, kind=TensorProto.INT8)
    one = net.weight(kind=TensorProto.FLOAT)
    za, zb = net.weight(kind=TensorProto.UINT8), net.weight(kind=TensorProto.INT8)
    net.op("QLinearMatMul", a, one, za, b, one, zb, one, za)
    product = net.op("Cast", net.op("MatMulInteger", a, b), to=TensorProto.FLOAT)
    found = count_shapes(infer(net.model({}, product), {}))
    assert found.total_macs == 2 * 105


@pytest.mark.parametrize(
    ("kind", "expected"), [("Add", 60), ("Erf", 60), ("Softmax", 60), ("Transpose", 0), ("Identity", 0)]
)
def test_other_operators_count_elements_or_nothing(kind, expected):
    net = Bare()
    output = net.op(kind, "x", "x") if kind == "Add" else net.op(kind, "x")
    found = net.count({"x": [3, 4, 5]}, output)
    assert (found.element_operations, found.total_macs, found.uncounted) == (expected, 0, {})


def test_reduction_counts_what_it_reads_and_resize_what_it_writes():
    net = Bare()
    net.op("ReduceMean", "x", axes=[2, 3])
    scales = net.weight(4)
    net.weights[-1].ClearField("data_location")
    net.weights[-1].float_data.extend([1, 1, 2, 2])
    found = net.count({"x": [1, 3, 4, 5]}, net.op("Resize", "x", "", scales))
    by_name = {row.operator: row.element_operations for row in found.operators}
    assert by_name == {"ReduceMean": 60, "Resize": 240}


def test_unknown_operator_is_named_and_what_follows_it_too():
    net = Bare()
    x = net.op("Mystery", "x", domain="com.microsoft")
    found = net.count({"x": [5, 7]}, net.op("MatMul", x, net.weight(7, 3)))
    assert found.uncounted == {"MatMul": 1, "com.microsoft.Mystery": 1}
    assert found.total_macs == 0


def test_no_operator_is_in_two_tables():
    tables = [set(MACS), set(ELEMENTWISE), set(REDUCING), set(MOVES)]
    assert sum(map(len, tables)) == len(set().union(*tables))
