"""`edgeseg bench model`."""

import json

import pytest

from edgeseg.benches.latency import effort
from edgeseg.benches.model import job
from edgeseg.benches.model.roofline import Roofline
from edgeseg.cli import main
from edgeseg.errors import BundleError, InputError

pytestmark = pytest.mark.onnx


@pytest.fixture
def bench(tiny_path, monkeypatch):
    monkeypatch.setattr(effort, "WARM_MOST_RUNS", 3)
    monkeypatch.setattr(job, "host_roofline", lambda: Roofline(1e9, 1e9, "float32", 1.0, "made up"))
    options = ["--backend", "onnxruntime", "--runs", "2"]
    return lambda *words: main(["bench", "model", str(tiny_path), *options, *map(str, words)])


def test_table_has_counts_and_shares(bench, capsys):
    assert bench() == 0
    out = capsys.readouterr().out
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert "parameters M" in out
    assert "%" in lines["sam"]
    assert lines["text"].split()[-4:] == ["-"] * 4
    assert "roofline: 2 GFLOP/s, 1.0 GB/s (made up)" in out
    assert "not to be trusted because" in out


def test_result_file_equals_the_json(bench, tmp_path, capsys):
    assert bench("-o", tmp_path / "model.json", "--count", "9", "--json") == 0
    body = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "model.json").read_text()) == body
    assert (body["command"], body["model"], body["precision"], body["classes"]) == ("bench model", "tiny", "fp32", 9)
    assert body["command_line"].endswith("--count 9 --json")
    assert len(body["graphs"]) == 6


def test_count_only_opens_nothing(bench, capsys, monkeypatch):
    monkeypatch.setattr("edgeseg.benches.model.cli.opened", None)
    assert bench("--count-only", "--json") == 0
    body = json.loads(capsys.readouterr().out)
    assert "roofline" not in body
    assert "latency_ms" not in body["graphs"][0]
    assert bench("--count-only", "--canvas", "64x96") == 0
    assert "canvas 64x96" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "found"),
    [
        (["--count-only", "--precision", "int8"], BundleError.exit_code, "it holds fp32"),
        (["--count-only", "--canvas", "32x32"], BundleError.exit_code, "32x32"),
        (["--canvas", "32x32"], InputError.exit_code, "there is none among"),
        (["--canvas", "wide"], InputError.exit_code, "'wide' is not HEIGHTxWIDTH"),
        (["--count", "0"], 2, "0"),
    ],
)
def test_command_line_that_cannot_be(bench, words, code, found, capsys):
    assert bench(*words) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert found in captured.err
