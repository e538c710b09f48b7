"""`edgeseg bench latency`: what it prints and writes, and what it says of a command line that cannot be."""

import json

import pytest

from edgeseg.benches.latency import effort
from edgeseg.benches.latency.effort import RULE
from edgeseg.cli import main
from edgeseg.errors import BundleError, InputError, StorageError
from tests.benches.trees import photo
from tests.edgeseg.tiny_bundle import CHAIN

pytestmark = pytest.mark.onnx

QUICK = ["--runs", "2", "--backend", "onnxruntime", "--threads", "1"]


@pytest.fixture
def bench(tiny_path, monkeypatch):
    """Runs `bench latency` on the tiny bundle, hardly warmed up; gives the exit code."""
    monkeypatch.setattr(effort, "WARM_MOST_RUNS", 3)
    return lambda *words: main(["bench", "latency", str(tiny_path), *QUICK, *map(str, words)])


def test_json_holds_conditions_stages_and_verdict(bench, capsys):
    assert bench("--json") == 0
    body = json.loads(capsys.readouterr().out)
    assert (body["schema"], body["command"], body["model"]) == (1, "bench latency", "tiny")
    assert body["command_line"].startswith("edgeseg bench latency ")
    assert body["command_line"].endswith("--threads 1 --json")
    assert (body["backend"], body["precision"], body["threads"]) == ("onnxruntime", "fp32", 1)
    assert "onnxruntime" in body["sdk"]
    assert body["image"] == {"path": None, "size": "64x64", "resized": "64x64", "canvas": "64x64", "exact": True}
    assert body["stand_in_classes"]
    (row,) = body["measurements"]
    assert (row["classes"], row["batch"], row["runs"]) == (150, 1, 2)
    assert [item["name"] for item in row["totals"]] == ["end_to_end", "segment"]
    assert [item["name"] for item in row["stages"] if item["part_of"] == "graphs"] == list(CHAIN)
    for item in (*row["totals"], *row["stages"]):
        assert len(item["samples_ms"]) == 2
        assert item["min_ms"] <= item["p50_ms"] <= item["p95_ms"] <= item["p99_ms"] <= item["max_ms"]
        assert item["included"]
        assert item["clock"] == "monotonic clock"
    whole = [item for item in row["stages"] if item["part_of"] is None]
    assert sum(item["mean_ms"] for item in whole) == pytest.approx(row["totals"][0]["mean_ms"], abs=0.01)
    assert row["warmup"]["rule"] == RULE
    assert row["memory"]["host_peak_bytes"] > 2**20
    assert row["conditions"]["cores"] >= 1
    assert not row["trusted"]
    assert row["reasons"][:2] == [
        "the latency had not settled after 3 runs of warm-up",
        "there are too few runs (2, at least 10 are needed)",
    ]


def test_table_says_what_is_included_and_whether_to_trust_it(bench, tmp_path, capsys):
    image = tmp_path / "street.png"
    photo(image, 1, (40, 90))
    assert bench("--image", image, "--classes", "cat, dog", "--canvas", "64x96") == 0
    out = capsys.readouterr().out
    assert "tiny fp32 on onnxruntime" in out
    assert "image 40x90, resized to" in out
    assert "on the canvas 64x96" in out
    assert "2 classes: 2 runs after" in out
    assert "open, decode and orient the image file" in out
    assert "not to be trusted because the latency had not settled" in out
    assert "host memory: at most" in out


def test_sweep_measures_each_number_of_classes(bench, capsys):
    assert bench("--sweep", "classes=1,4", "--sweep", "batch=1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[-2:-1]] == [["4", "1"]]
    assert lines[-4].split()[:2] == ["classes", "batch"]
    assert sum("open, decode" in line for line in lines) == 1  # what a stage includes is said once
    assert sum("graphs and copies" in line for line in lines if "ms" not in line) >= 1


def test_sweep_takes_the_first_of_the_named_classes(bench, capsys):
    assert bench("--classes", "cat, dog, tree", "--sweep", "classes=1,3", "--json") == 0
    body = json.loads(capsys.readouterr().out)
    assert [row["classes"] for row in body["measurements"]] == [1, 3]
    assert not body["stand_in_classes"]
    assert bench("--classes", "cat, dog", "--sweep", "classes=3") == InputError.exit_code
    assert "measure with 3 classes: 2 are named" in capsys.readouterr().err


def test_result_file_equals_the_json(bench, tmp_path, capsys):
    assert bench("-o", tmp_path / "latency.json", "--json") == 0
    assert json.loads((tmp_path / "latency.json").read_text()) == json.loads(capsys.readouterr().out)


def test_image_is_named_from_the_working_folder(bench, tmp_path, monkeypatch, capsys):
    photo(tmp_path / "street.png", 1, (64, 64))
    monkeypatch.chdir(tmp_path)
    assert bench("--image", tmp_path / "street.png", "--json") == 0
    assert json.loads(capsys.readouterr().out)["image"]["path"] == "street.png"


def test_result_file_has_a_line_for_each_list_of_runs(bench, tmp_path):
    assert bench("-o", tmp_path / "latency.json") == 0
    lines = (tmp_path / "latency.json").read_text().splitlines()
    samples = [line.strip() for line in lines if "samples_ms" in line]
    assert len(samples) == 15
    assert all(line.startswith('"samples_ms": [') and line.endswith("]") for line in samples)


def test_bundle_without_a_reference_wants_an_image(fake_bundle, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(effort, "WARM_MOST_RUNS", 1)
    words = ["bench", "latency", str(fake_bundle.path), "--backend", "fake", "--runs", "1"]
    assert main(words) == BundleError.exit_code
    assert "measure without an image: the bundle holds none for 64x64; give --image PATH" in capsys.readouterr().err
    photo(tmp_path / "photo.png", 1, (64, 64))
    assert main([*words, "--image", str(tmp_path / "photo.png")]) == 0


def test_batch_is_refused_and_nothing_is_measured(bench, capsys):
    assert bench("--sweep", "batch=4") == InputError.exit_code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "the graph sam takes image_sam as 1x3x64x64, so its batch is fixed to 1" in captured.err


@pytest.mark.parametrize(
    ("words", "code", "found"),
    [
        (["--canvas", "63x64"], BundleError.exit_code, "63x64"),
        (["--canvas", "big"], InputError.exit_code, "'big' is not HEIGHTxWIDTH"),
        (["--sweep", "queries=1"], InputError.exit_code, "queries"),
        (["--image", "no-such.jpg"], InputError.exit_code, "no-such.jpg"),
        (["--classes", "cat", "--dataset", "voc-20"], InputError.exit_code, "--classes and --dataset"),
        (["-o", "no/such/folder/a.json"], StorageError.exit_code, "there is no folder no/such/folder"),
        (["--precision", "int8"], BundleError.exit_code, "int8"),
        (["--runs", "0"], 2, "0"),
    ],
)
def test_command_line_that_cannot_be(bench, words, code, found, capsys):
    assert bench(*words) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert found in captured.err
