"""The verbs' own results, from measuring to the page."""

import json

import pytest

from edgeseg.cli import main
from tests.benches.made import accuracy, latency, write


@pytest.fixture
def report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *words: main(["bench", "report", *map(str, words)])


@pytest.mark.onnx
def test_real_results_of_every_verb_are_understood(report, tiny_path, folder, tmp_path, capsys):
    data = ["--dataset", "folder", "--root", str(folder), "--limit", "2", "--threads", "1"]
    quick = ["--runs", "3", "--threads", "1"]
    runs = {
        "a.json": ["accuracy", str(tiny_path), *data, "--per-image"],
        "g.json": ["accuracy", str(tiny_path), *data, "--against", "precision=fp32"],
        "l.json": ["latency", str(tiny_path), *quick, "--sweep", "classes=2,3"],
        "m.json": ["model", str(tiny_path), "--count-only"],
        "c.json": ["compare", "l.json", "l.json"],
        "d.json": ["compare", "a.json", "a.json"],
    }
    for name, words in runs.items():
        assert main(["bench", *words, "-o", name]) == 0, words
    capsys.readouterr()
    assert report(*runs, "-o", "r.html", "--markdown", "t.md", "--overlays", 2) == 0
    assert capsys.readouterr().out == "r.html\nt.md\n"
    page, table = (tmp_path / "r.html").read_text(), (tmp_path / "t.md").read_text()
    assert page.count("data:image/jpeg") == 8
    assert [line.count("|") for line in table.splitlines()[:3]] == [17] * 3  # one row: accuracy and latency are joined
    assert "\\[1\\] \\[3\\]" in table.splitlines()[2]
    paths = [json.loads((tmp_path / name).read_text())["bundle"] for name in ("a.json", "l.json", "m.json")]
    assert paths == [str(tiny_path)] * 3


def test_only_what_was_asked_for_is_written(report, tmp_path):
    (path,) = write(tmp_path, latency())
    assert report(path, "--markdown", "t.md") == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1.json", "t.md"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 3, "cannot make a report: no file is named for it; give -o report.html"),
        (["-o", "no/r.html"], 9, "there is no folder no"),
        (["-o", "r.html", "--overlays", "13"], 2, "13 is not in the range 1<=x<=12"),
        (["-o", "r.html", "--overlays", "1"], 3, "there is no such folder"),
        (["--markdown", "t.md", "--overlays", "1"], 3, "no file is named for it; give -o report.html"),
        (["-o", "r.html", "none.json"], 3, "cannot read the result none.json"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(report, tmp_path, capsys, words, code, said):
    (path,) = write(tmp_path, accuracy())
    assert report(path, *words) == code
    assert said in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["1.json"]


def test_label_maps_need_an_accuracy(report, tmp_path, capsys):
    (path,) = write(tmp_path, latency())
    assert report(path, "-o", "r.html", "--overlays", 1) == 3
    assert "cannot show label maps: none of the results is the accuracy of one engine" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_result_of_a_later_schema_is_refused_in_three_parts(report, tmp_path, capsys):
    (path,) = write(tmp_path, latency() | {"schema": 2})
    assert report(path, "-o", "r.html") == 3
    error = capsys.readouterr().err
    assert error == (
        f"edgeseg: cannot read the result {path}: its schema is 2 and this edgeseg knows 1; "
        "take the edgeseg that wrote it, or measure again\n"
    )
