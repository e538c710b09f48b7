"""The comparison of quantizers on trivial graphs: what is counted, and what is said of a tool that fails."""

import json

import numpy as np
import pytest

from benches.peers import ptq
from benches.peers.mobile_sam import _name_in_timm, chosen, overlap
from benches.peers.side import AbsentError
from benches.peers.turns import Turns

pytestmark = pytest.mark.onnx

CHANNELS = 32


def graph(path):
    """Two products with a weight, one of two tensors, and a Conv; of opset 17."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    square = rng.standard_normal((CHANNELS, CHANNELS)).astype(np.float32)
    weights = [numpy_helper.from_array(square, name) for name in "ab"]
    weights.append(numpy_helper.from_array(square.reshape(CHANNELS, CHANNELS, 1, 1), "c"))
    weights.append(numpy_helper.from_array(np.array([1, CHANNELS, 8, 4]), "shape"))
    nodes = [
        helper.make_node("MatMul", ["image", "a"], ["x"], "first"),
        helper.make_node("MatMul", ["x", "b"], ["y"], "second"),
        helper.make_node("Transpose", ["y"], ["turned"], "turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["turned", "y"], ["pairs"], "pairs"),
        helper.make_node("Reshape", ["turned", "shape"], ["planes"], "planes"),
        helper.make_node("Conv", ["planes", "c"], ["features"], "conv"),
    ]
    given = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, CHANNELS, CHANNELS])
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("features", "pairs")]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [given], made, weights), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(model, path)
    return model


def test_products_of_two_tensors_are_not_counted_and_integers_are_told_from_floats(tmp_path):
    import onnx

    from benches.peers.ptq_judge import on_cpu
    from edgeseg.calibration import calibrate_graph, insert_qdq
    from edgeseg.engines.cpu_form import to_cpu_form

    model = graph(tmp_path / "model.onnx")
    counted = on_cpu(tmp_path / "model.onnx")
    assert counted == {"gemm": {"integer": 0, "all": 2}, "conv": {"integer": 0, "all": 1}}
    image = np.random.default_rng(1).standard_normal((1, CHANNELS, CHANNELS)).astype(np.float32)
    quantized = insert_qdq(model, calibrate_graph(model, [{"image": image}]), leave_out=["first", "conv"])
    to_cpu_form(quantized)
    onnx.save(quantized, tmp_path / "quantized.onnx")
    counted = on_cpu(tmp_path / "quantized.onnx")
    assert counted == {"gemm": {"integer": 1, "all": 2}, "conv": {"integer": 0, "all": 1}}


@pytest.mark.parametrize("tool", ["edgeseg", "ort-minmax"])
@pytest.mark.slow
def test_tool_quantizes_in_a_process_of_its_own_and_says_what_it_took(tmp_path, monkeypatch, tool):
    from benches.peers.quantizers import MODEL, PHOTOS, cpu_file

    graph(tmp_path / MODEL)
    np.save(tmp_path / PHOTOS, np.random.default_rng(1).standard_normal((3, CHANNELS, CHANNELS)).astype(np.float32))
    made, left_out = ptq.quantize(tmp_path, [tool])
    assert left_out == []
    assert made[tool]["quantize_s"] > 0
    assert made[tool]["peak_bytes"] > 2**20
    assert "onnxruntime" in made[tool]["versions"]
    assert (tmp_path / cpu_file(tool)).exists()


def test_a_tool_that_cannot_be_had_is_left_out_with_the_reason(tmp_path, monkeypatch):
    def refuse(work):
        raise AbsentError("it cannot be had")

    monkeypatch.setattr(ptq, "peer_packages", refuse)
    made, left_out = ptq.quantize(tmp_path, ["modelopt-max"])
    assert made == {}
    missing = {"name": "modelopt-max", "title": ptq.TOOLS["modelopt-max"]}
    assert left_out == [{**missing, "reason": "it cannot be had", "failed": False}]


def test_a_tool_that_crashes_has_failed_and_its_last_words_are_the_reason(tmp_path):
    made, left_out = ptq.quantize(tmp_path, ["ort-minmax"])  # there is no model to read
    assert made == {}
    (missing,) = left_out
    assert missing["failed"]
    assert "No such file or directory" in missing["reason"]
    assert str(tmp_path) not in missing["reason"]


@pytest.fixture
def script(tmp_path, monkeypatch):
    """`ptq.main` with one tool and a judge that take no time: its exit code and result, given what is left out."""
    values = {"cosine_mean": 1.0, "cosine_worst": 1.0, "mask_iou": 1.0, "cpu": None, "rtx": None}
    monkeypatch.setattr(ptq, "prepare", lambda work, options: None)
    monkeypatch.setattr("benches.peers.mobile_sam.chosen", lambda folder, photos: [])
    monkeypatch.setattr(ptq, "judge", lambda work, weights, photos, names: {name: values for name in names})

    def run(quantizing, timing):
        monkeypatch.setattr(ptq, "quantize", lambda work, names: ({"edgeseg": {}}, quantizing))
        monkeypatch.setattr(ptq, "take_turns", lambda *_: timing)
        words = [*map(str, [tmp_path, "w.pt", tmp_path, tmp_path]), "-o", str(tmp_path / "ptq.json")]
        return ptq.main(words), json.loads((tmp_path / "ptq.json").read_text())

    return run


@pytest.mark.parametrize(("failed", "code"), [(True, 1), (False, 0)])
def test_command_fails_with_a_tool_but_not_for_want_of_one(script, failed, code, capsys):
    missing = {"name": "b", "title": "another", "reason": "it had no luck", "failed": failed}
    assert script([missing], Turns())[0] == code
    assert f"another: {'failed' if failed else 'left out'}, it had no luck" in capsys.readouterr().out


def test_a_graph_that_cannot_be_timed_is_named(script, capsys):
    code, body = script([], Turns(failed={"ptq/edgeseg": "it ended"}))
    missing = {"name": "edgeseg", "title": ptq.TOOLS["edgeseg"], "reason": "not timed: it ended", "failed": True}
    assert (code, body["left_out"], body["times"]) == (1, [missing], [])
    assert "edgeseg int8: failed, not timed: it ended" in capsys.readouterr().out


def test_masks_that_are_empty_on_both_sides_do_not_count():
    half = np.array([[True, True], [False, False]])
    full, empty = half | True, half & False
    assert overlap(np.stack([half, empty]), np.stack([full, empty])) == 0.5
    assert overlap(np.stack([half, empty]), np.stack([half, full])) == 0.5


@pytest.mark.parametrize(
    ("published", "name"),
    [
        ("patch_embed.seq.2.c.weight", "patch_embed.conv2.conv.weight"),
        ("layers.0.downsample.conv1.bn.bias", "stages.1.downsample.conv1.bn.bias"),
        ("layers.1.blocks.0.attn.qkv.weight", "stages.1.blocks.0.attn.qkv.weight"),
    ],
)
def test_weights_are_known_by_timms_names(published, name):
    assert _name_in_timm(published) == name


def test_photos_are_spread_over_the_folder(tmp_path):
    for number in range(10):
        (tmp_path / f"{number}.png").touch()
    (tmp_path / "notes.txt").touch()
    assert [path.name for path in chosen(tmp_path, 3)] == ["0.png", "3.png", "6.png"]
    with pytest.raises(SystemExit, match="holds 10 photos, and 11 are needed"):
        chosen(tmp_path, 11)


def test_table_has_a_row_for_each_tool_and_a_line_for_what_is_missing():
    counted = {"gemm": {"integer": 3, "all": 4}, "conv": {"integer": 0, "all": 2}}
    values = {"cosine_mean": 0.5, "cosine_worst": 0.25, "mask_iou": 0.75, "cpu": counted, "rtx": None}
    tool = {"name": "ort-minmax", "title": "a tool", "quantize_s": 7.0, "peak_bytes": 2**30, **values}
    times = [{"name": "ptq/ort-minmax", "median_s": 0.125}, {"name": "ptq/fp32", "median_s": 1.0}]
    missing = {"name": "b", "title": "another", "reason": "no wheel", "failed": False}
    _, row, left, _ = ptq.lines({"tools": [tool], "times": times, "left_out": [missing]})
    assert row.split() == ["a", "tool", "0.50000", "0.25000", "0.7500", "3/6", "-", "7s", "1024", "125ms"]
    assert left == "another: left out, no wheel"


def test_command_is_written_without_this_machines_paths(tmp_path):
    words = [str(tmp_path / name) for name in ("work", "w.pt", "data/camvid/train/images", "data/camvid/test/images")]
    options = ptq.parse([*words, "--only", "edgeseg"])
    text = ptq.shown(options)
    assert str(tmp_path) not in text
    assert "WORK mobile_sam.pt camvid/train/images camvid/test/images" in text
    assert text.endswith("--only edgeseg")
