"""The graphs of SAM and USE before a compiler: operators that every TensorRT from 8.6 on reads, and NVIDIA's own."""

import shutil

import onnx
import pytest

from edgeseg.cli import main
from edgeseg.errors import BuildError

pytestmark = [pytest.mark.torch, pytest.mark.onnx]

# Of the operators that onnx-tensorrt lists for TensorRT 8.6 and 10.3, those with no restriction that matters here.
READ = set(
    """
    Add And Cast Clip Concat Conv Cos Div Equal Erf Expand Gather Gemm Greater Identity LayerNormalization Less MatMul
    Max Min Mul Neg Not Pad Pow ReduceL2 ReduceMax ReduceMean ReduceMin ReduceSum Relu Reshape Shape Sigmoid Sin Slice
    Softmax Split Sqrt Squeeze Sub Transpose Unsqueeze Where
    """.split()  # noqa: SIM905  # a list of strings is nine times as long
)
MOST_AXES = 8  # of a TensorRT tensor


def test_every_graph_is_of_operators_that_tensorrt_reads(small_use):
    for spec in small_use.manifest.graphs:
        model = onnx.shape_inference.infer_shapes(onnx.load(small_use.file(spec.file), load_external_data=False))
        assert {node.op_type for node in model.graph.node} <= READ, spec.name
        assert model.opset_import[0].version == 17
        axes = [len(value.type.tensor_type.shape.dim) for value in model.graph.value_info]
        assert max(axes) <= MOST_AXES, spec.name


@pytest.mark.slow
def test_encoders_become_int8_and_all_graphs_pass_the_gate_in_fp16(small_use, tmp_path, capsys):
    shutil.copytree(small_use.path, tmp_path / "a.bundle")  # it is other tests' too
    path = str(tmp_path / "a.bundle")
    assert main(["quantize", path, "--precision", "fp16"]) == 0
    assert main(["build", path, "--backend", "onnxruntime", "--precision", "fp16"]) == 0
    capsys.readouterr()
    assert main(["quantize", path, "--precision", "int8"]) == 0
    assert "2 graphs in int8; score, text stay fp32; sam_decoder, use_head stay fp16" in capsys.readouterr().out
    assert main(["build", path, "--backend", "onnxruntime", "--precision", "int8"]) == BuildError.exit_code
    assert "got fp32 in 2 of 2 convolutions" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.tensorrt
def test_tensorrt_rtx_compiles_every_graph(small_use, tmp_path):
    compile_all(small_use, tmp_path)


@pytest.mark.slow
@pytest.mark.tensorrt
def test_tensorrt_rtx_compiles_mobile_sam(mobile_bundle, tmp_path):
    compile_all(mobile_bundle, tmp_path)


def compile_all(bundle, folder):
    from edgeseg.backends import get_backend
    from edgeseg.bundle import Bundle
    from edgeseg.calibration.quantize import quantize_bundle
    from edgeseg.engines.compiler import Job
    from edgeseg.engines.tensorrt_rtx import TensorRTRTXCompiler

    shutil.copytree(bundle.path, folder / "a.bundle")  # it is other tests' too
    bundle = Bundle.open(folder / "a.bundle")
    quantize_bundle(bundle, lambda *_: None)
    compiler = TensorRTRTXCompiler(get_backend("tensorrt_rtx").probe(), ("sm89",))
    bundle = Bundle.open(bundle.path)
    halves = [spec for spec in bundle.manifest.graphs if spec.precision == "fp16"]
    assert {spec.name for spec in halves} == {spec.name for spec in bundle.manifest.graphs}
    for spec in halves:
        target = folder / f"{spec.name}.engine"
        outcome = compiler.compile(Job(bundle.graph_files(spec), spec, target, folder), lambda *_: None)
        assert target.stat().st_size > 1000
        assert outcome.layers, spec.name
