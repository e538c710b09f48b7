"""docs/json.md and docs/benchmarks.md say what `bench latency` and `bench model` print."""

import json
import re

import pytest

from edgeseg.benches.latency import effort, verdict
from edgeseg.benches.model import job
from edgeseg.benches.model.roofline import Roofline
from edgeseg.cli import main
from tests.test_docs import DOCS, cells, keys, section

pytestmark = pytest.mark.onnx

ENVELOPE = ("schema", "command", "date", "environment")
PAGE = re.sub(r"\s+", " ", (DOCS / "benchmarks.md").read_text())


def tables(title):
    """The parts of a section, by the line above each table; the first one under ""."""
    first, *rest = re.split(r"^((?:A )?\w+):$", section("json.md", title), flags=re.MULTILINE)
    return {"": first} | dict(zip(rest[::2], rest[1::2], strict=True))


@pytest.fixture
def printed(tiny_path, capsys, monkeypatch):
    monkeypatch.setattr(effort, "WARM_MOST_RUNS", 2)
    monkeypatch.setattr(job, "host_roofline", lambda: Roofline(1e9, 1e9, "float32", 1.0, "made up"))

    def run(*words):
        assert main(["bench", words[0], str(tiny_path), "--runs", "1", "--json", *words[1:]]) == 0
        return {key: value for key, value in json.loads(capsys.readouterr().out).items() if key not in ENVELOPE}

    return run


def listed(table, key):
    """The names in the second cell of a key's row."""
    return next(re.findall(r"`(\w+)`", second) for names, second in cells(table) if key in names)


def test_every_key_of_a_latency_is_documented(printed):
    body, found = printed("latency"), tables("edgeseg bench latency")
    assert keys(found[""]) == list(body)
    assert listed(found[""], "image") == list(body["image"])
    (row,) = body["measurements"]
    assert sorted(keys(found["A measurement"])) == sorted(row)
    assert listed(found["A measurement"], "warmup") == list(row["warmup"])
    assert listed(found["A measurement"], "memory") == list(row["memory"])
    assert sorted(keys(found["A stage"])) == sorted(row["stages"][0])
    assert keys(found["Conditions"]) == list(row["conditions"])
    assert listed(found["Conditions"], "cpu_use") == list(row["conditions"]["cpu_use"])


def test_every_key_of_a_model_is_documented(printed):
    body, found = printed("model"), tables("edgeseg bench model")
    assert sorted(keys(found[""])) == sorted(body)
    assert listed(found[""], "roofline") == list(body["roofline"])
    row = body["graphs"][0]
    assert keys(found["A graph"]) == list(row)
    assert listed(found["A graph"], "macs") == list(row["macs"])
    assert listed(found["A graph"], "operators") == list(row["operators"][0])
    counted = printed("model", "--count-only")
    assert {"command_line", "bundle", "model", "precision", "canvas", "classes", "graphs", "notes"} == set(counted)


def test_every_stage_is_documented(printed):
    rows = printed("latency")["measurements"][0]["stages"]
    names = {name for names, _ in cells(section("benchmarks.md", "Latency")) for name in names}
    assert {row["name"] for row in rows if row["part_of"] is None} <= names


def test_limits_on_the_page_are_those_of_the_code():
    assert f"at least {effort.LEAST_RUNS} and at most {effort.MOST_RUNS}" in PAGE
    assert f"given up after {effort.WARM_MOST_S:.0f} s or {effort.WARM_MOST_RUNS} runs" in PAGE
    assert f"differ by at most {100 * effort.TOLERANCE:.0f} %" in PAGE
    assert f"covers more than {verdict.SPREAD_PERCENT:.0f} % of the median" in PAGE
    assert f"p95 exceeds {verdict.TAIL} times the median" in PAGE
    assert f"more than {100 * verdict.DRIFT:.0f} % slower" in PAGE
    assert f"the GPU was {verdict.BUSY_GPU_PERCENT} % busy" in PAGE
