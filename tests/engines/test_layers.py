import json

import pytest

from edgeseg.engines.layers import Layer, fused_attentions, parse_dump, parse_inspector, summary

DUMP = "\n".join(
    [
        "Layers:",
        "Name: wait_0, LayerType: wait, Inputs: [], Constants: [], Outputs: [], TacticName: , Metadata: ",
        "Name: /q/MatMul+/k/MatMul_0, LayerType: gemm, "
        "Inputs: [ { Name: a, Dimensions: [1,8], Datatype: Half, Format: (Linear) }], "
        "Constants: [ { Name: w, Dimensions: [8,8], Datatype: Int8, Format: (Linear) }], "
        "Outputs: [ { Name: b, Dimensions: [1,8], Datatype: Float, Format: (Linear) }], TacticName: t, StreamId: 0, "
        "Metadata: [ONNX Layer: /q/MatMul][ONNX Layer: /k/MatMul]",
        "Name: _gemm_mha_v2_myl0_1, LayerType: kgen, Inputs: [], Constants: [], "
        "Outputs: [ { Name: c, Dimensions: [1], Datatype: Half, Format: (Linear) }], TacticName: _gemm_mha_v2_0x3, ",
        "",
        "I/O Tensors:",
        " Name: x, IOMode: Input, DataType: Float, Dimensions: [1,8]",
    ]
)

TEN_LAYER = {
    "Name": "/q/MatMul",
    "LayerType": "gemm",
    "Inputs": [{"Name": "a", "Dimensions": [1, 8], "Format/Datatype": "Row major linear FP16 format"}],
    "Outputs": [{"Name": "b", "Dimensions": [1, 8], "Format/Datatype": "Row major linear FP32"}],
    "Metadata": "[ONNX Layer: /q/MatMul]",
}
ELEVEN_LAYER = TEN_LAYER | {
    "Inputs": [{"Name": "a", "DataType": "Half"}],
    "Outputs": [{"Name": "b", "Datatype": "Float"}],
}
TEN = {"Layers": [TEN_LAYER], "Bindings": ["x", "y"]}
ELEVEN = {"Layers": [ELEVEN_LAYER], "I/O Tensors": [{"Name": "x", "IOMode": "Input", "DataType": "Float"}]}


def test_layers_of_the_build_log_are_read():
    gemm = parse_dump(DUMP)[1]
    assert gemm == Layer("/q/MatMul+/k/MatMul_0", "gemm", ("Half",), ("Float",), ("/q/MatMul", "/k/MatMul"), ("Int8",))
    assert len(parse_dump(DUMP)) == 3


def test_summary_counts_work_and_leaves_synchronisation_out():
    assert summary(parse_dump(DUMP)) == {
        "layers": 2,
        "fused_attentions": 1,
        "kinds": {"gemm": 1, "kgen": 1},
        "output_types": {"Float": 1, "Half": 1},
    }


@pytest.mark.parametrize("information", [TEN, ELEVEN], ids=["tensorrt 10", "tensorrt 11"])
def test_inspector_of_both_majors_gives_the_same_layers(information):
    layers = parse_inspector(json.dumps(information))
    assert layers == [Layer("/q/MatMul", "gemm", ("Half",), ("Float",), ("/q/MatMul",))]


def test_inspector_of_an_engine_without_details_gives_names():
    layers = parse_inspector(json.dumps({"Layers": ["_gemm_mha_v2_0", "conv"], "Bindings": []}))
    assert [layer.name for layer in layers] == ["_gemm_mha_v2_0", "conv"]
    assert fused_attentions(layers) == 1
