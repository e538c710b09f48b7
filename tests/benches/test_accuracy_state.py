"""A run that was cut short goes on where it was and ends with the same counts; the state of another run is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edgeseg
from edgeseg.benches.accuracy import Options, State, compare, evaluate
from edgeseg.benches.datasets import open_dataset
from edgeseg.cli.class_lists import ClassLists
from edgeseg.errors import InputError
from tests.benches.conftest import SIZES, make_folder
from tests.benches.runs import Interrupted, half_done
from tests.benches.trees import grey, photo
from tests.edgeseg.tiny_bundle import CLASSES, make_bundle

pytestmark = pytest.mark.onnx

LISTS = ClassLists(Path("lists.json"), {"a": ("cat",)})


@pytest.mark.parametrize("processes", [1, 2])
def test_interrupted_run_goes_on_and_ends_with_the_same_counts(segmenter, dataset, tmp_path, processes):
    whole = evaluate(segmenter, dataset)
    state = State(tmp_path / "run.state")
    for after in (2, 3):
        with pytest.raises(KeyboardInterrupt):
            evaluate(segmenter, dataset, state=state, processes=processes, progress=Interrupted(after))
    seen: list[int] = []
    resumed = evaluate(segmenter, dataset, state=state, progress=lambda done, total: seen.append(done))
    assert (resumed.resumed, seen[0]) == (3, 3)
    assert np.array_equal(resumed.confusion, whole.confusion)
    assert resumed.count.worst == whole.count.worst
    assert resumed.images == len(dataset)


def test_interrupt_in_the_middle_of_counting_leaves_whole_images(segmenter, dataset, tmp_path, monkeypatch):
    from edgeseg.benches.accuracy import count as module

    original, calls = module._worse, []

    def interrupting(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args)

    state = State(tmp_path / "run.state")
    with monkeypatch.context() as patch:
        patch.setattr(module, "_worse", interrupting)
        with pytest.raises(KeyboardInterrupt):
            evaluate(segmenter, dataset, state=state)
    resumed = evaluate(segmenter, dataset, state=state)
    assert resumed.resumed == 2
    assert np.array_equal(resumed.confusion, evaluate(segmenter, dataset).confusion)


def test_finished_run_is_not_run_again(segmenter, dataset, tmp_path):
    state = State(tmp_path / "run.state")
    first = evaluate(segmenter, dataset, state=state)
    segmenter.close()  # any further image would fail
    again = evaluate(segmenter, dataset, segmenter.vocabulary(CLASSES), state=state)
    assert np.array_equal(first.confusion, again.confusion)
    assert again.resumed == len(dataset)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"options": Options(threshold=0.5)}, "threshold was None, is 0.5"),
        ({"options": Options(resize="none")}, "resize rule was the recipe's, is none"),
        ({"options": Options(canvas=(64, 96))}, "canvas was any, is 64x96"),
        ({"options": Options(settings={"rounds": "2"})}, "settings was none, is rounds=2"),
        ({"options": Options(lists=LISTS)}, "class lists was none, is [0-9a-f]{12}"),
        ({"options": Options(top_k=2)}, "classes left early was None, is 2"),
        ({"overlap": {"cat": False}}, "vocabulary was"),
        ({"limit": 3}, "list of images was"),
    ],
)
def test_state_of_another_run_is_refused_with_what_differs(segmenter, dataset, tmp_path, change, words):
    state = half_done(segmenter, dataset, tmp_path / "run.state")
    vocabulary = segmenter.vocabulary(CLASSES, change.get("overlap"))
    other = dataset.first(change.get("limit", 99))
    before = state.path.read_bytes()
    with pytest.raises(InputError, match=words):
        evaluate(segmenter, other, vocabulary, change.get("options"), state=state)
    assert state.path.read_bytes() == before


def test_state_of_other_engines_is_refused(segmenter, dataset, tmp_path):
    state = half_done(segmenter, dataset, tmp_path / "run.state")
    bundle = make_bundle(tmp_path / "other.bundle")
    with bundle.edit() as edit:
        spec = bundle.graph("head", "fp32", (64, 64))
        edit.stage(spec.file).write_bytes(bundle.file(spec.file).read_bytes() + b"\x0a\x00")
        edit.add_graph(replace(spec))
    with (
        edgeseg.open(bundle.path, backend="onnxruntime") as other,
        pytest.raises(InputError, match="files was"),
    ):
        evaluate(other, dataset, state=state)


def test_state_of_a_comparison_is_refused_by_a_score(segmenter, dataset, tmp_path):
    state = State(tmp_path / "run.state")
    compare(segmenter, segmenter, dataset, state=state)
    with pytest.raises(InputError, match=r"engine of the other was fp32 on onnxruntime \S+, is \(nothing\)"):
        evaluate(segmenter, dataset, state=state)


def test_state_is_refused_when_a_counted_image_has_changed(segmenter, tmp_path):
    dataset = open_dataset("folder", make_folder(tmp_path / "folder"))
    state = half_done(segmenter, dataset, tmp_path / "run.state")
    photo(tmp_path / "folder/images/5.png", 99, SIZES[5])  # not yet counted
    evaluate(segmenter, dataset.first(99), state=State(state.path))
    photo(tmp_path / "folder/images/0.png", 99, (20, 20))
    with pytest.raises(InputError, match="have changed since"):
        evaluate(segmenter, dataset, state=state)


@pytest.mark.parametrize("content", [b"", b"no state", None])
def test_damaged_state_is_refused(segmenter, dataset, tmp_path, content):
    state = half_done(segmenter, dataset, tmp_path / "run.state")
    state.path.write_bytes(state.path.read_bytes()[:-200] if content is None else content)
    with pytest.raises(InputError, match="no state of this version, or damaged"):
        evaluate(segmenter, dataset, state=state)


def test_state_is_not_written_before_its_time(segmenter, dataset, tmp_path):
    writes = {}
    for every_s in (0.0, 3600.0):
        state = State(tmp_path / f"{every_s}.state", every_s)
        seen: list[int] = []
        evaluate(segmenter, dataset, state=state, progress=lambda *_, s=state, n=seen: n.append(s.path.exists()))
        writes[every_s] = seen
    assert writes[0.0][2:] == [True] * (len(dataset) - 1)
    assert not any(writes[3600.0])


def test_images_counted_before_an_error_need_not_be_counted_again(segmenter, tmp_path):
    dataset = open_dataset("folder", make_folder(tmp_path / "folder"))
    grey(tmp_path / "folder/labels/3.png", [7], SIZES[3])
    state = State(tmp_path / "run.state")
    with pytest.raises(InputError):
        evaluate(segmenter, dataset, state=state)
    grey(tmp_path / "folder/labels/3.png", [0], SIZES[3])
    assert evaluate(segmenter, dataset, state=state).resumed == 3


def test_each_image_s_counts_survive_an_interruption(segmenter, dataset, tmp_path):
    whole = evaluate(segmenter, dataset, per_image=True)
    state = half_done(segmenter, dataset, tmp_path / "run.state", per_image=True)
    resumed = evaluate(segmenter, dataset, state=state, per_image=True)
    assert (resumed.resumed, len(resumed.count.images)) == (2, len(dataset))
    assert all(map(np.array_equal, resumed.count.images, whole.count.images))


def test_state_without_each_image_s_counts_is_refused_where_they_are_wanted(segmenter, dataset, tmp_path):
    state = half_done(segmenter, dataset, tmp_path / "run.state")
    with pytest.raises(InputError, match="each image's counts was \\(nothing\\), is kept"):
        evaluate(segmenter, dataset, state=state, per_image=True)


def test_state_with_another_table_of_images_is_refused(segmenter, dataset, tmp_path):
    state = half_done(segmenter, dataset, tmp_path / "run.state", per_image=True)
    arrays = dict(np.load(state.path))
    with state.path.open("wb") as file:
        np.savez_compressed(file, **arrays | {"images": arrays["images"][0]})
    with pytest.raises(InputError, match="its table of images is another"):
        evaluate(segmenter, dataset, state=state, per_image=True)
