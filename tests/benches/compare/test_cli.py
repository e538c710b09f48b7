import json
import re

import pytest

from edgeseg.cli import main
from tests.benches.made import ENVIRONMENT, accuracy, latency, write
from tests.test_docs import cells, keys, section

FAST, SLOW = [10.0 + i / 100 for i in range(20)], [20.0 + i / 100 for i in range(20)]


@pytest.fixture
def run(tmp_path):
    return lambda a, b, *words: main(["bench", "compare", *map(str, write(tmp_path, a, b)), *words])


@pytest.mark.parametrize(("a", "b", "words"), [(FAST, SLOW, "slower"), (SLOW, FAST, "faster"), (FAST, FAST, "shown")])
def test_exit_code_is_0_whichever_is_faster(run, capsys, a, b, words):
    assert run(latency("a", a), latency("b", b)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "A: model-a fp16 on tensorrt sm87-trt10.3.0 (1.json)"
    assert lines[3] == "3 classes: 20 runs of A, 20 of B"
    assert lines[5].startswith("end to end")
    assert lines[5].endswith(words)
    assert [line.index("read") for line in lines if "read" in line] == [2]


def test_refusal_has_exit_code_3_and_nothing_on_stdout(run, tmp_path, capsys):
    other = latency("b", environment=ENVIRONMENT | {"cores": 4})
    assert run(latency("a"), other, "--json", "-o", str(tmp_path / "c.json")) == 3
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err == (
        "edgeseg: cannot compare 1.json and 2.json: cores is 6 in A and 4 in B; "
        "measure both alike, or give --across to compare them all the same\n"
    )
    assert not (tmp_path / "c.json").exists()


def test_comparison_across_surroundings_says_so(run, capsys):
    assert run(latency("a"), latency("b", environment=ENVIRONMENT | {"cores": 4}), "--across") == 0
    assert "not measured alike: cores is 6 in A and 4 in B" in capsys.readouterr().out


def test_accuracies_are_shown_by_both_conventions(run, capsys):
    assert run(accuracy("a", 40.0), accuracy("b", 41.25)) == 0
    out = capsys.readouterr().out
    assert "  mmseg: 40.00 % and 41.25 %, difference +1.250: no interval\n" in out
    assert "note: there is no interval" in out


def documented(title):
    """The keys of each table below a heading of docs/json.md."""
    return [keys(part) for part in re.split(r"^A \w+[^|\n]*:$", section("json.md", title), flags=re.MULTILINE)]


def test_every_key_of_the_result_is_documented(run, capsys):
    top, measured, of_stage, of_convention = documented("edgeseg bench compare")
    assert run(latency("a", FAST), latency("b", SLOW), "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert run(accuracy("a"), accuracy("b"), "--json") == 0
    second = json.loads(capsys.readouterr().out)
    said = ("schema", "command", "date", "environment")
    assert [key for key in top if key in first] == [key for key in first if key not in said]
    assert [key for key in top if key in second] == [key for key in second if key not in said]
    assert set(top) <= {*first, *second}
    assert measured == list(first["measurements"][0])
    assert of_stage == list(first["measurements"][0]["stages"][0])
    assert of_convention == list(second["miou"]["mmseg"])
    row = {names[0]: text for names, text in cells(section("json.md", "edgeseg bench compare"))}
    assert re.findall(r"`(\w+)`", row["a"]) == list(first["a"])
