"""A file may come from anyone: what is no result of this version is refused before anything is shown."""

import json

import pytest

from edgeseg.benches.report import read_result, read_results
from edgeseg.benches.report import result as module
from edgeseg.benches.report.forms import FORMS
from edgeseg.errors import InputError
from tests.benches.made import accuracy, agreement, count, demo, latency, model, write

KINDS = {
    "accuracy": accuracy(),
    "agreement": agreement(),
    "latency": latency(),
    "model": model(),
    "count": count(),
    "demo": demo(),
}
IMAGE = {"key": "a", "classes": [0, 2], **{f"{name}_pixels": [1, 2] for name in ("labelled", "predicted", "correct")}}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_known(tmp_path, kind):
    assert read_result(*write(tmp_path, KINDS[kind])).kind == kind
    assert kind in FORMS


def test_mask_recall_alone_is_refused_and_beside_scores_is_taken(tmp_path):
    both = accuracy() | {"mask_recall": {}}
    assert read_result(*write(tmp_path, both)).kind == "accuracy"
    with pytest.raises(InputError, match="it holds the mask recall of a SAM alone"):
        read_result(*write(tmp_path, {name: value for name, value in both.items() if name != "scores"}))


def test_results_are_numbered_as_given(tmp_path):
    found = read_results(write(tmp_path, latency("b"), accuracy()))
    assert [(one.number, one.file, one.name) for one in found] == [
        (1, "1.json", "model-b fp16 tensorrt"),
        (2, "2.json", "model-a fp16 tensorrt"),
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "its schema is 2 and this edgeseg knows 1; take the edgeseg that wrote it"),
        ({"schema": "1"}, "schema is no whole number"),
        ({"command": "inspect"}, "it is of the command 'inspect'"),
        ({"measurements": []}, "measurements is empty, so it is damaged"),
        ({"environment": {}}, "environment has no 'edgeseg'"),
        ({"model": None}, "model is no text"),
        ({"settings": {"rounds": 2}}, "settings.rounds is no text"),
        ({"class_lists": []}, "class_lists is no text"),
        ({"top_k": "6"}, "top_k is no whole number"),
    ],
)
def test_other_content_is_refused(tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        read_result(*write(tmp_path, latency() | change))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is no JSON"),
        ("[" * 100_000, "it is nested too deep"),
        ("[]", "it is no object"),
        ('{"schema": NaN}', "NaN is no number"),
        ("\xff", "it is no JSON"),
        ("9" * 5000, "it is no JSON"),
    ],
)
def test_what_is_no_json_object_is_refused(tmp_path, text, words):
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=words):
        read_result(path)


def test_missing_or_huge_file_is_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="No such file"):
        read_result(tmp_path / "none.json")
    monkeypatch.setattr(module, "LIMIT_BYTES", 1 << 20)
    (tmp_path / "big.json").write_text(json.dumps("x" * (1 << 20)))
    with pytest.raises(InputError, match="larger than 1 MiB"):
        read_result(tmp_path / "big.json")


@pytest.mark.parametrize(
    "change",
    [{"classes": [0, 3]}, {"classes": [-1, 0]}, {"classes": [1, 1]}, {"correct_pixels": [1]}, {"key": 7}],
)
def test_counts_of_images_must_fit_the_classes(tmp_path, change):
    read_result(*write(tmp_path, accuracy(per_image=[IMAGE])))
    with pytest.raises(InputError, match="per_image"):
        read_result(*write(tmp_path, accuracy(per_image=[IMAGE | change])))
