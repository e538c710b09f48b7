import os
import signal
import threading

import numpy as np
import onnx
import pytest

from edgeseg.calibration.fp16 import to_half
from edgeseg.calibration.weights import WeightReader, WeightWriter
from edgeseg.engines import layers
from edgeseg.engines.trt_network import Options, compile_graph
from edgeseg.errors import BuildError
from tests.nets import Net, save, spec, vit

pytestmark = [pytest.mark.onnx, pytest.mark.tensorrt]
trt = pytest.importorskip("tensorrt_rtx")


def for_sm89(config):
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)


def compile_model(model, folder, half=False, advance=lambda _: None, **fields):
    path = save(model, folder)
    if half:
        (folder / "fp16").mkdir()
        with WeightWriter(folder / "fp16" / "net.bin") as writer:
            model = onnx.load(path, load_external_data=False)
            to_half(model, WeightReader([folder / "net.bin"]), writer, "net")
        path = folder / "fp16" / "net.onnx"
        onnx.save(model, path)
    return compile_graph(trt, path, spec(model, **fields), Options(adjust=for_sm89), advance)


@pytest.mark.parametrize(("half", "official", "fused"), [(True, False, 2), (True, True, 0), (False, False, 0)])
def test_attention_is_fused_in_fp16_and_with_positions_added_before_the_view(tmp_path, half, official, fused):
    compiled = compile_model(vit(blocks=2, official=official), tmp_path, half)
    assert layers.fused_attentions(compiled.layers) == fused


def test_types_in_the_engine_are_those_of_the_graph(tmp_path):
    halves = layers.summary(compile_model(vit(), tmp_path, half=True).layers)["output_types"]
    assert halves["Half"] > 2 * halves.get("Float", 0)


def test_engine_is_written_and_progress_reported(tmp_path):
    shares: list[float] = []
    compiled = compile_model(vit(), tmp_path, advance=shares.append)
    assert memoryview(compiled.plan).nbytes > 10_000
    assert len(shares) > 5
    assert 0 <= min(shares) <= max(shares) <= 1


def test_adjustments_of_one_sdk_reach_the_configuration(tmp_path):
    model, seen = vit(), []
    path = save(model, tmp_path)
    compile_graph(trt, path, spec(model), Options(adjust=lambda config: seen.append(config)), lambda _: None)
    assert [type(config).__name__ for config in seen] == ["IBuilderConfig"]


def test_dynamic_axes_get_their_extents(tmp_path):
    net = Net()
    model = net.model({"x": ["N", 8]}, {"y": ["N", 8]}, {"y": net.linear("x", 8)})
    assert compile_model(model, tmp_path, axes={"N": (1, 3, 64)}).layers


def test_dynamic_axis_without_extents_fails_with_the_compilers_words(tmp_path):
    net = Net()
    model = net.model({"x": ["N", 8]}, {"y": ["N", 8]}, {"y": net.linear("x", 8)})
    with pytest.raises(BuildError, match="profile"):
        compile_model(model, tmp_path)


def test_parser_errors_name_the_node(tmp_path):
    net = Net()
    model = net.model({"x": [1, 8]}, {"y": [1, 8]}, {"y": net.op("Sigmoid", "x")})
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(BuildError, match=r"parse net.onnx.*NoSuchOperator.*/Sigmoid_0"):
        compile_model(model, tmp_path)


def test_suppression_as_an_operator_is_read_and_refused(tmp_path):
    net = Net()  # why segments are suppressed on the host, see docs/segments.md
    net.dtypes["kept"] = onnx.TensorProto.INT64
    kept = net.op("NonMaxSuppression", "boxes", "scores", net.const(np.array([64])), net.const(np.array([0.7])))
    model = net.model({"boxes": [1, 64, 4], "scores": [1, 1, 64]}, {"kept": ["K", 3]}, {"kept": kept})
    with pytest.raises(BuildError, match=r"compile net.onnx.*no runners that implement it"):
        compile_model(model, tmp_path, axes={"K": (0, 16, 64)})


def test_ctrl_c_stops_the_compiler(tmp_path):
    once = threading.Event()

    def press(_share: float) -> None:
        if not once.is_set():
            once.set()
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        compile_model(vit(), tmp_path, advance=press)
