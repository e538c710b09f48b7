"""`edgeseg bench accuracy`: what it prints and writes, and what it says of a command line that cannot be."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from edgeseg.benches.accuracy import State, evaluate
from edgeseg.benches.accuracy.count import Count
from edgeseg.benches.accuracy.describe import accuracy_lines
from edgeseg.benches.datasets import open_dataset
from edgeseg.benches.output import numbers_on_one_line
from edgeseg.cli import main
from edgeseg.errors import INTERRUPTED, InputError, StorageError
from tests.benches.conftest import SIZES
from tests.benches.trees import grey, photo

pytestmark = pytest.mark.onnx


@pytest.fixture
def bench(tiny_path, folder):
    """Runs `bench accuracy` on the small folder; gives the exit code."""

    def run(*words, name="folder", root=folder):
        options = ["--dataset", name, "--root", str(root), "--backend", "onnxruntime"]
        return main(["bench", "accuracy", str(tiny_path), *options, *map(str, words)])

    return run


def test_result_file_holds_counts_scores_and_the_command(bench, segmenter, dataset, tmp_path, capsys):
    output = tmp_path / "result.json"
    assert bench("-o", output, "--convention", "mmseg") == 0
    body, expected = json.loads(output.read_text()), evaluate(segmenter, dataset)
    assert (body["schema"], body["command"], body["convention"]) == (1, "bench accuracy", "mmseg")
    assert body["command_line"].startswith("edgeseg bench accuracy ")
    assert body["command_line"].endswith("--convention mmseg")
    assert body["confusion"] == expected.confusion.tolist()
    for name in ("detectron2", "mmseg"):
        scores = expected.under(name).scores
        assert body["scores"][name]["miou_percent"] == scores.miou
        assert body["scores"][name]["unseen_miou_percent"] == scores.unseen_miou
    assert [row["name"] for row in body["classes"]] == list(dataset.classes.names)
    assert [row["labelled_pixels"] for row in body["classes"]] == expected.confusion.sum(1).tolist()
    assert sum(row["correct_pixels"] for row in body["classes"]) == expected.confusion.trace()
    assert body["dataset"]["images"] == body["images"] == len(SIZES)
    assert body["worst_image"]["key"] == expected.count.worst.key
    assert not (tmp_path / "result.json.state").exists()
    out = capsys.readouterr().out
    assert "convention: mmsegmentation's IoUMetric" in out
    assert f"mIoU {expected.under('mmseg').miou:.2f} %" in out


def test_matrix_stays_readable_in_the_file(bench, tmp_path):
    bench("-o", tmp_path / "result.json")
    lines = (tmp_path / "result.json").read_text().splitlines()
    assert sum(line.strip().startswith("[") and line.count(",") >= 3 for line in lines) == 3
    value = {"a": [[1, 2], []], "b": [1.5], "c": "[1,  2]"}
    text = numbers_on_one_line(json.dumps(value, indent=2))
    assert json.loads(text) == value
    assert "\n    [1, 2],\n" in text


def test_json_is_one_line_on_stdout(bench, capsys):
    assert bench("--json", "--limit", 2, "--processes", 2, "--threads", 1) == 0
    (line,) = capsys.readouterr().out.splitlines()
    body = json.loads(line)
    assert (body["images"], body["processes"]) == (2, 2)
    assert body["notes"][0] == "only the first 2 of 7 images were used (--limit)"


def test_what_cannot_be_said_is_null(bench, tmp_path, capsys):
    photo(tmp_path / "images/a.png", size=(64, 64))
    grey(tmp_path / "labels/a.png", [0, 255], (64, 64))
    (tmp_path / "classes.txt").write_text("cat\nhorse")
    assert bench("--json", root=tmp_path) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["scores"]["detectron2"]["unseen_miou_percent"] is None
    assert body["classes"][1]["accuracy_percent"] is None
    assert bench(root=tmp_path) == 0
    assert "unseen mIoU -" in capsys.readouterr().out


def test_limited_run_says_so_and_resize_and_canvas_are_recorded(bench, capsys):
    assert bench("--json", "--resize", "none", "--canvas", "64x96", "--limit", 3) == 0
    body = json.loads(capsys.readouterr().out)
    assert (body["resize"], body["canvas"], body["inexact_images"]) == ({"mode": "none"}, "64x96", 3)
    assert any("otherwise than the authors' code" in note for note in body["notes"])


def test_prompts_can_be_replaced_one_for_one(bench, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("kitten\npuppy\ntable\n")
    assert bench("--json", "--file", tmp_path / "names.txt", "--training", "table") == 0
    body = json.loads(capsys.readouterr().out)
    assert body["prompts"] == ["kitten", "puppy", "table"]
    assert [row["name"] for row in body["classes"]] == ["cat", "dog", "wooden table"]
    assert [row["seen"] for row in body["classes"]] == [False, False, True]
    assert bench("--classes", "cat, dog") == InputError.exit_code


def test_seen_classes_of_the_data_set_can_be_overridden(bench, capsys):
    assert bench("--json", "--new", "cat") == 0
    assert [row["seen"] for row in json.loads(capsys.readouterr().out)["classes"]] == [False, True, False]


def test_engines_are_compared_on_images_without_labels(bench, tiny_path, folder, capsys):
    words = ("--classes", "cat, dog", "--limit", 3)
    for other in (tiny_path, f"bundle={tiny_path},precision=fp32", "backend=onnxruntime"):
        assert bench(*words, "--json", "--against", other, name="images", root=folder / "images") == 0
        body = json.loads(capsys.readouterr().out)
        assert (body["agreement_percent"], body["images"], body["dataset"]["images"]) == (100.0, 3, 3)
        assert body["against"]["precision"] == "fp32"
        assert [row["name"] for row in body["classes"]] == ["cat", "dog"]
    assert bench(*words, "--against", tiny_path, name="images", root=folder / "images") == 0
    assert "100.00 % of the pixels of 3 images have the same label" in capsys.readouterr().out


def test_images_without_labels_need_class_names(bench, folder, capsys):
    assert bench("--against", "precision=fp32", name="images", root=folder / "images") == InputError.exit_code
    assert 'give --classes "cat, dog"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--canvas", "64"], 3, "'64' is not HEIGHTxWIDTH"),
        (["--canvas", "32x32"], 3, "there is none among 64x64, 64x96"),
        (["--against", "speed=9"], 3, "bundle=..., backend=..., precision=..."),
        (["--against", "precision="], 3, "bundle=..., backend=..., precision=..."),
        (["--against", "precision=fp16"], 5, "quantize"),
        (["--against", "nowhere.bundle"], 5, "there is no such directory"),
        (["--split", "val"], 3, "there is no val/images"),
        (["--limit", "0"], 2, "0 is not in the range"),
        (["--convention", "coco"], 2, "'coco' is not one of"),
        (["-o", "nowhere/result.json"], 9, "there is no folder nowhere"),
        (["--state", "."], 9, "it is a folder"),
    ],
)
def test_impossible_command_lines_are_refused(bench, capsys, words, code, text):
    assert bench(*words) == code
    assert text in capsys.readouterr().err


def test_unknown_bench_is_answered_with_the_known_ones(capsys):
    assert main(["bench", "speed"]) == 2
    assert "there is no command 'speed'; there are " in capsys.readouterr().err
    assert main(["bench", "--help"]) == 0
    assert re.search(r"accuracy +Score engines", capsys.readouterr().out)


def test_interrupted_command_goes_on_when_it_is_typed_again(bench, segmenter, dataset, tmp_path, monkeypatch, capsys):
    output, kept = tmp_path / "result.json", State.keep
    with monkeypatch.context() as patch:

        def keep(self, count, *rest):
            if count.done == 4:
                raise KeyboardInterrupt
            kept(self, count, *rest)

        patch.setattr(State, "keep", keep)
        assert bench("-o", output) == INTERRUPTED
    assert (tmp_path / "result.json.state").exists()
    assert not output.exists()
    assert bench("-o", output) == 0
    body = json.loads(output.read_text())
    assert body["resumed_images"] == 4
    assert body["confusion"] == evaluate(segmenter, dataset).confusion.tolist()
    assert "4 of 7 images had been counted by an earlier run" in capsys.readouterr().out


def test_state_is_kept_when_the_result_cannot_be_written(bench, tmp_path):
    (tmp_path / "result.json").mkdir()
    assert bench("-o", tmp_path / "result.json") == StorageError.exit_code
    state = tmp_path / "run.state"
    assert bench("--state", state) == 0
    assert not state.exists()


def test_of_many_classes_the_lowest_are_printed(segmenter, dataset):
    result, matrix = evaluate(segmenter, dataset), np.zeros((100, 101), np.int64)
    matrix[:80, 0] = 1
    matrix[np.arange(80), np.arange(80)] = np.arange(80) * 5
    many = replace(result, classes=tuple(f"c{i}" for i in range(100)), seen=(None,) * 100, count=Count(matrix, 1))
    lines = list(accuracy_lines(many))
    assert sum("IoU " in line and "pixels" in line for line in lines) == 20
    assert any(line.split()[0] == "c1" for line in lines)
    assert not any(line.split()[0] in ("c79", "c90") for line in lines)
    assert "(the 20 lowest of 100 classes; all are in the JSON)" in lines[-1]


@pytest.mark.slow
def test_the_whole_of_camvids_test_split_is_counted(segmenter, shared):
    dataset = open_dataset("camvid-11", shared / "data")
    result = evaluate(segmenter, dataset, processes=2)
    labels = np.zeros(11, np.int64)
    for index in range(len(dataset)):
        found = dataset.load(index).labels
        labels += np.bincount(found[found >= 0], minlength=11)
    assert result.images == 233
    assert np.array_equal(result.confusion.sum(1), labels)


def test_classes_are_rejected_early_as_by_run(bench, capsys):
    assert bench("--top-k", "2") == InputError.exit_code
    assert "leave --top-k out" in capsys.readouterr().err  # EBSeg has no such pass
