"""What a graph asks for, what the engine got, and the error where they differ."""

import json
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeseg.bundle import Bundle
from edgeseg.engines.builder import build, make_engines
from edgeseg.engines.choice import choose
from edgeseg.engines.layers import Layer, parse_dump, parse_inspector
from edgeseg.engines.obtained import Product, arithmetic, counts, differences, obtained, products, refused
from edgeseg.engines.onnxruntime import optimized_layers
from edgeseg.engines.request import Request
from edgeseg.engines.trt_network import Options, compile_graph
from edgeseg.errors import BuildError
from tests.engines import blocks
from tests.nets import spec

pytestmark = pytest.mark.onnx
TOKENS, WIDTH, HEADS = 16, 64, 2
SM89 = ("sm89",)


class Quantized:
    """A typed int8 graph, fp16 around the quantised layers: one block of a transformer, as `calibration` writes it."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.random = np.random.default_rng(0)

    def op(self, kind, *inputs, name=None, **attributes):
        name = name or f"/{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [f"{name}_out"], name, **attributes))
        return f"{name}_out"

    def const(self, value):
        self.weights.append(numpy_helper.from_array(np.asarray(value), f"c{len(self.weights)}"))
        return self.weights[-1].name

    def activation(self, x):
        scale, zero = self.const(np.float16(0.05)), self.const(np.int8(0))
        return self.op("DequantizeLinear", self.op("QuantizeLinear", x, scale, zero), scale, zero)

    def linear(self, x, width, to, name):
        values = self.random.standard_normal((width, to)) / np.sqrt(width)
        scale = (np.abs(values).max(0) / 127).astype(np.float16)
        steps = self.const(np.clip(np.rint(values / scale), -127, 127).astype(np.int8))
        weight = self.op("DequantizeLinear", steps, self.const(scale), self.const(np.zeros(to, np.int8)), axis=1)
        return self.op("MatMul", x, weight, name=name)

    def shaped(self, x, *shape):
        return self.op("Reshape", x, self.const(np.array(shape)))

    def attention(self, fused):
        """x → attention; `fused`: q, k and v are one product, which NVIDIA's compiler then computes in fp16."""
        x, size = self.activation(self.op("Cast", "x", to=TensorProto.FLOAT16)), WIDTH // HEADS
        if fused:
            qkv = self.shaped(self.linear(x, WIDTH, 3 * WIDTH, "/attn/qkv"), 1, TOKENS, 3, HEADS, size)
            qkv, parts = self.op("Transpose", qkv, perm=[2, 0, 3, 1, 4]), ["/q", "/k", "/v"]
            self.nodes.append(
                helper.make_node("Split", [qkv, self.const(np.array([1, 1, 1]))], parts, "/split", axis=0)
            )
            q, k, v = (self.shaped(part, 1, HEADS, TOKENS, size) for part in parts)
        else:
            q, k, v = (
                self.op(
                    "Transpose",
                    self.shaped(self.linear(x, WIDTH, WIDTH, f"/attn/{part}"), 1, TOKENS, HEADS, size),
                    perm=[0, 2, 1, 3],
                )
                for part in "qkv"
            )
        q = self.op("Mul", q, self.const(np.float16(size**-0.5)))
        scores = self.op("MatMul", q, self.op("Transpose", k, perm=[0, 1, 3, 2]), name="/attn/scores")
        mixed = self.op("MatMul", self.op("Softmax", scores, axis=-1), v, name="/attn/mix")
        mixed = self.shaped(self.op("Transpose", mixed, perm=[0, 2, 1, 3]), 1, TOKENS, WIDTH)
        return self.linear(self.activation(mixed), WIDTH, WIDTH, "/attn/proj")

    def model(self, fused=False):
        self.nodes.append(helper.make_node("Cast", [self.attention(fused)], ["y"], "/y", to=TensorProto.FLOAT))
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, TOKENS, WIDTH]) for name in "xy"]
        graph = helper.make_graph(self.nodes, "net", values[:1], values[1:], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def compiled(model, folder):
    """The layers that NVIDIA's compiler makes of a graph, for a GPU that is not here."""
    trt = pytest.importorskip("tensorrt_rtx")
    onnx.save(model, folder / "net.onnx")

    def adjust(config):
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM89, 0)

    return compile_graph(trt, folder / "net.onnx", spec(model), Options(adjust=adjust), lambda _: None).layers


@pytest.mark.tensorrt
def test_nvidias_compiler_keeps_int8_where_q_k_and_v_are_three(tmp_path):
    model = Quantized().model()
    layers, wanted = compiled(model, tmp_path), products(model)
    got = obtained(wanted, layers)
    assert counts(wanted, got, layers) == {"gemm": {"int8": 4}, "attention": {"fp16": 1}}
    assert differences(wanted, got) == []


@pytest.mark.tensorrt
def test_nvidias_compiler_falls_back_to_fp16_where_they_are_one_and_that_is_seen(tmp_path):
    model = Quantized().model(fused=True)
    layers, wanted = compiled(model, tmp_path), products(model)
    got = obtained(wanted, layers)
    assert counts(wanted, got, layers) == {"gemm": {"fp16": 1, "int8": 1}, "attention": {"fp16": 1}}
    assert differences(wanted, got) == ["asked int8, got fp16 in 1 of 2 GEMMs: /attn/qkv"]


@pytest.fixture
def misfit(blocky):
    """A bundle whose int8 `sam` is a graph that the compiler does not keep in int8."""
    bundle = blocky()
    graph = bundle.graph("sam", "int8", blocks.CANVAS)
    model = Quantized().model(fused=True)
    x = helper.make_tensor_value_info("image_sam", TensorProto.FLOAT, [1, 3, *blocks.CANVAS])
    model.graph.input[0].CopyFrom(x)
    pooled = helper.make_node("Slice", ["image_sam", "from", "to", "axes"], ["first"], "/first")
    shaped = helper.make_node("Reshape", ["first", "shape"], ["x"], "/shaped")
    for name, value in {"from": [0], "to": [1], "axes": [1], "shape": [1, TOKENS, WIDTH]}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    rest = [onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]
    del model.graph.node[:]
    ends = [helper.make_node("Identity", ["y"], [tensor.name], f"/{tensor.name}") for tensor in graph.outputs]
    model.graph.node.extend([pooled, shaped, *rest, *ends])
    del model.graph.output[:]
    model.graph.output.extend(
        helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, [1, TOKENS, WIDTH]) for tensor in graph.outputs
    )
    with bundle.edit() as edit:
        edit.stage(graph.file).write_bytes(model.SerializeToString())
    return bundle


@pytest.mark.tensorrt
def test_a_build_that_gets_another_precision_is_an_error_and_keeps_nothing(misfit):
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(
        BuildError, match=r"build sam at 32x32 in int8: asked int8, got fp16 in 1 of 2 GEMMs: /attn/qkv"
    ):
        build(misfit.path, choose(None, SM89), Request("int8"), shown=False)
    left = Bundle.open(misfit.path)
    left.verify()
    assert "sam" not in {engine.graph for engine in left.manifest.engines}


@pytest.mark.tensorrt
def test_what_weighs_it_as_it_is_gets_the_engine_and_is_told(misfit):
    pytest.importorskip("tensorrt_rtx")
    built = make_engines(misfit.path, choose(None, SM89), Request("int8", tolerant=True), shown=False)
    sam = next(item for item in built if item.engine.graph == "sam")
    assert sam.differences == ("asked int8, got fp16 in 1 of 2 GEMMs: /attn/qkv",)
    assert sam.engine.layers["gemm"] == {"fp16": 1, "int8": 1}


@pytest.mark.tensorrt
def test_what_layers_got_is_kept_in_the_bundle(blocky):
    pytest.importorskip("tensorrt_rtx")
    bundle = blocky()
    build(bundle.path, choose(None, SM89), Request("int8"), shown=False)
    layers = {engine.graph: engine.layers for engine in Bundle.open(bundle.path).manifest.engines}
    assert layers["sam"]["gemm"] == {"fp16": 6, "int8": 18}  # the positions are two small products per block
    assert layers["sam"]["attention"] == {"fp16": 3}
    assert layers["sam"]["conv"] == {"fp16": 1}


def test_onnxruntime_is_believed_no_more_than_the_others(blocky, tmp_path):
    bundle = blocky()
    graph = bundle.graph("sam", "int8", blocks.CANVAS, "plain")
    model = onnx.load(bundle.graph_files(graph), load_external_data=False)
    wanted = products(model)
    layers = optimized_layers(model, bundle.path / "graphs/int8", tmp_path)
    assert differences(wanted, obtained(wanted, layers))[0].startswith("asked int8, got fp32 in 18 of 18 GEMMs")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bundle"]


def test_onnxruntimes_own_form_is_computed_in_integers(blocky):
    bundle = blocky()
    built = build(bundle.path, choose("onnxruntime", ()), Request("int8"), shown=False)
    layers = {item.engine.graph: item.engine.layers for item in built}
    assert layers["sam"]["gemm"] == {"fp32": 6, "int8": 18}
    assert layers["sam"]["conv"] == {"fp32": 1}
    assert layers["score"] == {}  # nothing of it is quantised, so nobody looked


GEMM = {
    "Name": "/q/MatMul",
    "LayerType": "gemm",
    "Metadata": "[ONNX Layer: /q/MatMul]",
}
TEN = GEMM | {
    "Inputs": [{"Name": "a", "Dimensions": [1, 8], "Format/Datatype": "Row major linear Int8 format"}],
    "Outputs": [{"Name": "b", "Dimensions": [1, 8], "Format/Datatype": "Row major linear FP16 format"}],
    "Weights": {"Type": "Int8", "Count": 64},
}
ELEVEN = GEMM | {
    "Inputs": [{"Name": "a", "DataType": "Int8"}],
    "Outputs": [{"Name": "b", "DataType": "Half"}],
    "Constants": [
        {"Name": "w", "Dimensions": [8, 8], "DataType": "Int8"},
        {"Name": "alpha", "Dimensions": [1], "DataType": "Float"},
    ],
}


@pytest.mark.parametrize("layer", [TEN, ELEVEN], ids=["tensorrt 10", "tensorrt 11"])
def test_both_spellings_of_the_inspector_tell_the_precision(layer):
    layers = parse_inspector(json.dumps({"Layers": [layer]}))
    assert obtained(["/q/MatMul"], layers) == {"/q/MatMul": "int8"}


DUMP = (
    "Layers:\nName: /q/MatMul_myl0_1, LayerType: gemm, "
    "Inputs: [ { Name: a, Dimensions: [1,8], Datatype: Int8, Format: (Linear) }], "
    "Constants: [ { Name: w, Dimensions: [8,8], Datatype: Half, Format: (Linear) }, "
    "{ Name: s, Dimensions: [1,8], Datatype: Float, Format: (Linear) }], "
    "Outputs: [ { Name: b, Dimensions: [1,8], Datatype: Half, Format: (Linear) }], TacticName: t, Metadata: "
)


def test_a_table_among_the_constants_is_a_weight_and_a_row_is_a_scale():
    (layer,) = parse_dump(DUMP)
    assert layer.weights == ("Half",)
    assert obtained(["/q/MatMul"], [layer]) == {"/q/MatMul": "fp16"}


@pytest.mark.parametrize(
    ("layer", "precision"),
    [
        (Layer("a", "gemm", ("Int8", "Half"), weights=("Int8",)), "int8"),  # the second input is a sum's other half
        (Layer("a", "gemm", ("Int8", "Int8")), "int8"),
        (Layer("a", "gemm", ("Int8", "Half")), "fp16"),
        (Layer("a", "correlation", ("FP8",), weights=("FP8",)), "fp8"),
        (Layer("a", "runtime_fusion", ("Float", "Half")), "fp16"),  # it casts the first
        (Layer("a", "runtime_fusion", ("Int8", "Half")), "fp16"),
        (Layer("_gemm_mha_v2_0", "kgen", ("Half", "Half", "Half", "Float")), "fp16"),
        (Layer("a", "gemm", ("BFloat16",), weights=("BFloat16",)), "bf16"),
        (Layer("a", "kgen"), "unknown"),
    ],
)
def test_the_operands_of_a_layer_give_its_precision(layer, precision):
    assert arithmetic(layer) == precision


def test_the_layer_that_multiplies_counts_and_not_the_one_that_scales():
    gemm = Layer("g", "gemm", ("Int8",), weights=("Int8",), nodes=("/q/MatMul",))
    scale = Layer("k", "kgen", ("Half",), nodes=("/q/MatMul", "/next"))
    assert obtained(["/q/MatMul"], [scale, gemm]) == {"/q/MatMul": "int8"}


def test_an_engine_that_says_nothing_of_its_inside_is_unknown_not_wrong():
    opaque = Layer("{ForeignNode[/a...]}", "Myelin", ("Float",), nodes=("/q/MatMul",))
    got = obtained(["/q/MatMul"], [opaque])
    assert got == {"/q/MatMul": "unknown"}
    assert differences({"/q/MatMul": Product("gemm", "int8")}, got) == []


def test_a_difference_names_a_few_nodes_and_counts_the_rest():
    wanted = {f"/{i}": Product("gemm", "int8") for i in range(9)} | {"/c": Product("conv", "fp16")}
    got = {name: "fp16" for name in wanted} | {"/0": "int8"}
    assert differences(wanted, got) == ["asked int8, got fp16 in 8 of 9 GEMMs: /1, /2, /3, /4 and 4 more"]


@pytest.mark.parametrize(
    ("gemm", "wrong"), [({"fp32": 3}, True), ({"fp32": 3, "int8": 1}, False), ({"unknown": 3}, False), ({}, False)]
)
def test_a_compiler_that_is_only_allowed_a_precision_must_have_taken_it_once(gemm, wrong):
    assert bool(refused({"gemm": gemm}, "int8")) is wrong
