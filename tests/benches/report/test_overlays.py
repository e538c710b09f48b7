"""Images of a result are run again with the very engines that were scored, and show what was counted."""

import json
import re
from pathlib import Path

import pytest

from edgeseg.benches.datasets import open_dataset
from edgeseg.benches.report import read_result, read_results
from edgeseg.benches.report.overlays import _job, chosen, overlay_section, overlays_of, run_again
from edgeseg.cli import main
from edgeseg.errors import BundleError, InputError
from tests.benches.made import write
from tests.edgeseg.tiny_bundle import make_bundle

pytestmark = pytest.mark.onnx


@pytest.fixture(scope="module")
def scored(tiny_path, folder, tmp_path_factory):
    """The JSON of a run over the tiny data set."""
    path = tmp_path_factory.mktemp("scored") / "a.json"
    words = ["bench", "accuracy", str(tiny_path), "--dataset", "folder", "--root", str(folder), "-o", str(path)]
    assert main([*words, "--threshold", "0.3", "--new", "cat", "--resize", "none"]) == 0
    return path


def again(path: Path, count=3, **changes):
    body = json.loads(path.read_text())
    changed = path.with_name("changed.json")
    changed.write_text(json.dumps(body | changes))
    return run_again(read_result(changed), count, lambda done, of: None)


def test_worst_image_comes_first_and_is_as_right_as_it_was(scored):
    worst = json.loads(scored.read_text())["worst_image"]
    pictures = again(scored)
    assert len(pictures) == 3
    words = f"{worst['key']}, {worst['correct_percent']:.2f} % of its pixels right, the lowest share"
    assert pictures[0].title.endswith(words)
    assert not any("lowest" in one.title for one in pictures[1:])


def test_image_that_is_labelled_otherwise_now_is_said(scored):
    worst = json.loads(scored.read_text())["worst_image"]
    (picture,) = again(scored, 1, worst_image=worst | {"correct_percent": 1.0})
    assert re.search(r"right now; 1\.00 % when it was scored$", picture.title)


@pytest.mark.parametrize(
    ("change", "options"),
    [
        ({}, {"threshold": 0.3, "resize": "none"}),
        ({"threshold": None}, {"resize": "none"}),
        ({"resize": None}, {"threshold": 0.3}),
        ({"resize": {"mode": "short-side"}, "canvas": "64x64"}, {"threshold": 0.3, "canvas": (64, 64)}),
    ],
)
def test_options_are_those_of_the_result(scored, segmenter, dataset, change, options):
    found = {picture.title.split(": ")[1] for picture in again(scored, len(dataset), worst_image=None, **change)}
    vocabulary, shares = segmenter.vocabulary(list(dataset.classes.names), {"cat": False}), set()
    for index, item in enumerate(dataset.items):
        sample = dataset.load(index)
        labels = segmenter(sample.rgb, vocabulary, **options).labels
        right = 100 * (labels == sample.labels)[sample.labels >= 0].mean()
        shares.add(f"{item.key}, {right:.2f} % of its pixels right")
    assert found == shares


def test_classes_are_taken_as_seen_or_not_as_in_the_result(scored, segmenter, dataset):
    """By the bundle's own list "cat" and "dog" were seen; the result was made with --new cat."""
    body = json.loads(scored.read_text())
    assert segmenter.vocabulary(dataset.prompts).overlap.tolist() == [1, 1, 0]
    assert _job(segmenter, dataset, body).sides[0].vocabulary.overlap.tolist() == [0, 1, 0]
    other = _job(segmenter, dataset, body | {"prompts": ["a cat", "a dog", "tables"]}).sides[0].vocabulary
    assert (other.names, other.overlap.tolist()) == (("a cat", "a dog", "tables"), [0, 1, 0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"engines_sha256": "0" * 64}, "are no longer those that were scored"),
        ({"dataset": {"images": 99}}, "99 images were scored and .* holds 7"),
        ({"dataset": {"root": "gone"}}, "there is no such folder"),
    ],
)
def test_what_is_no_longer_there_is_refused(scored, change, words):
    if "dataset" in change:
        change = {"dataset": json.loads(scored.read_text())["dataset"] | change["dataset"]}
    with pytest.raises(InputError, match=words):
        again(scored, **change)


@pytest.mark.parametrize(
    ("worst", "count", "indices"),
    [("4", 1, [4]), ("4", 3, [4, 0, 6]), ("0", 4, [0, 1, 3, 6]), (None, 2, [0, 6]), ("4", 12, [4, 0, 1, 2, 3, 5, 6])],
)
def test_others_are_spread_over_the_data_set(folder, worst, count, indices):
    dataset = open_dataset("folder", folder)
    assert chosen(dataset, worst and {"key": worst, "correct_percent": 1.0}, count) == indices


def test_engines_of_another_bundle_are_not_taken_for_those(scored, tmp_path):
    other = make_bundle(tmp_path / "other.bundle", ((64, 96),)).path
    with pytest.raises(InputError, match="no longer those"):
        again(scored, bundle=str(other))


def test_result_that_cannot_be_run_again_is_named_beside_the_others(scored, tmp_path):
    gone = json.loads(scored.read_text()) | {"bundle": str(tmp_path / "gone.bundle")}
    results = read_results(write(tmp_path, gone, json.loads(scored.read_text())))
    found = overlays_of(results, 1, lambda done, of: None)
    assert len(found.pictures) == 1
    (missing,) = found.missing
    assert missing.startswith("no label maps of [1]: cannot open")
    assert "gone.bundle" in overlay_section(found)
    with pytest.raises(BundleError):
        overlays_of(results[:1], 1, lambda done, of: None)
