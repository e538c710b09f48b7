"""Changing a bundle: every edit happens completely or not at all, whatever cuts it short."""

import contextlib
import errno
import os
import threading
from pathlib import Path

import pytest

from edgeseg.bundle import Bundle
from edgeseg.errors import BundleError, StorageError
from edgeseg.schema import Gate
from tests.edgeseg.interruptions import change, cut_at, killed_at
from tests.edgeseg.small_bundle import add_engine, add_graph, engine, graph, make, tree


@pytest.fixture
def bundle(tmp_path):
    return make(tmp_path / "a.bundle")


def test_an_edit_replaces_adds_and_removes(bundle):
    change(bundle)
    bundle.verify()
    assert Bundle.open(bundle.path).manifest == bundle.manifest
    assert bundle.graph("head", "int8", (64, 64)).name == "head"
    assert bundle.file("graphs/fp16/sam-64x64.onnx").read_text().endswith("changed")
    assert "graphs/fp32/text-any.onnx" not in tree(bundle.path)
    assert not list(bundle.path.glob(".stage-*"))


def test_weights_stay_while_another_canvas_needs_them(bundle):
    with bundle.edit() as edit:
        edit.remove_graphs(lambda spec: spec.precision == "fp16" and spec.canvas == (64, 64))
    bundle.verify()
    assert bundle.file("graphs/fp16/sam.bin")
    with bundle.edit() as edit:
        edit.remove_graphs(lambda spec: spec.precision == "fp16")
    assert not (bundle.path / "graphs/fp16").exists()


def test_engines_are_added_gated_and_removed(bundle):
    built = engine(bundle.graph("sam", "fp16", (64, 64)))
    with bundle.edit() as edit:
        add_engine(edit, built)
        assert edit.current(built.file).read_text() == "engine"
        assert edit.digest(built.file).bytes == 6
    with bundle.edit() as edit:
        edit.add_engine(engine(bundle.graph("sam", "fp16", (64, 64)), gate=Gate(True, 0.9995)))
    assert [spec.gate for spec in bundle.manifest.engines] == [Gate(True, 0.9995)]
    assert bundle.graph_files(built).read_text() == "engine"
    with bundle.edit() as edit:
        edit.remove_engines(lambda spec: spec.backend == "tensorrt_rtx")
    assert not (bundle.path / "engines").exists()


def test_an_edit_starts_from_what_is_on_disk_now(bundle):
    other = Bundle.open(bundle.path)
    change(other)
    with bundle.edit() as edit:
        edit.update(name="renamed")
    assert bundle.graph("head", "int8", (64, 64))
    assert Bundle.open(bundle.path).manifest.name == "renamed"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x"), OSError(errno.ENOSPC, "full")])
def test_an_edit_cut_short_changes_nothing(bundle, error):
    before = tree(bundle.path)
    with pytest.raises((type(error), StorageError)):
        change(bundle, error)
    assert tree(bundle.path) == before


@pytest.mark.parametrize("call", ["replace", "fsync", "mkdir"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "full")])
def test_a_commit_cut_short_at_any_step_changes_nothing(bundle, monkeypatch, call, error):
    owner = Path if call == "mkdir" else os  # pathlib of Python 3.10 keeps os.mkdir to itself
    before, original = tree(bundle.path), getattr(owner, call)
    for step in range(100):
        monkeypatch.setattr(owner, call, cut_at(step, original, error))
        with contextlib.suppress(KeyboardInterrupt, StorageError):
            change(bundle)
        monkeypatch.setattr(owner, call, original)
        if (bundle.path / "bundle.json").read_bytes() != before["bundle.json"]:
            break  # it was cut after it took effect, or not at all
        assert tree(bundle.path) == before
    assert step > 3
    Bundle.open(bundle.path).verify()


def test_files_that_could_not_be_moved_back_are_moved_back_by_the_next_opening(bundle, monkeypatch):
    before, original = tree(bundle.path), os.replace
    for step in range(2, 6):
        monkeypatch.setattr(os, "replace", cut_at(step, original, OSError(errno.EIO, "broken"), lasting=True))
        with contextlib.suppress(StorageError):
            change(bundle)
        monkeypatch.setattr(os, "replace", original)
        assert tree(bundle.path) != before
        assert tree(Bundle.open(bundle.path).path) == before


def test_a_process_killed_at_any_step_of_an_edit_leaves_the_old_bundle_or_the_new(tmp_path):
    step, outcomes = 0, []
    while True:
        bundle = make(tmp_path / f"{step}.bundle")
        killed = killed_at(step, f"from edgeseg.bundle import Bundle\nchange(Bundle.open({str(bundle.path)!r}))")
        again = Bundle.open(bundle.path)
        again.verify()
        outcomes.append("new" if again.manifest != bundle.manifest else "old")
        if not killed:
            break
        with again.edit():
            pass
        assert not list(again.path.glob(".stage-*"))
        step += 1
    assert step > 5
    assert outcomes == sorted(outcomes, reverse=True)
    assert {*outcomes} == {"old", "new"}


def test_two_processes_editing_at_once_lose_nothing(bundle):
    def work(name):
        with Bundle.open(bundle.path).edit() as edit:
            add_graph(edit, graph(name))

    threads = [threading.Thread(target=work, args=(f"g{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = Bundle.open(bundle.path)
    found.verify()
    assert {f"g{i}" for i in range(4)} <= {spec.name for spec in found.manifest.graphs}


def test_a_bundle_that_is_being_edited_can_be_read_and_refuses_a_second_edit(bundle):
    refused = []

    def attempt():
        try:
            with Bundle.open(bundle.path).edit(wait=False):
                pass
        except StorageError as error:
            refused.append(error)

    with bundle.edit() as edit:
        add_graph(edit, graph("head"))
        Bundle.open(bundle.path).file("tokenizer.json")
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
    assert len(refused) == 1


def test_a_file_that_was_staged_but_not_written_is_refused(bundle):
    before = tree(bundle.path)
    with pytest.raises(BundleError, match=r"notes\.txt.* never written"), bundle.edit() as edit:
        edit.stage("notes.txt")
    assert tree(bundle.path) == before


def test_an_unlisted_file_in_the_way_is_not_overwritten(bundle):
    (bundle.path / "notes.txt").write_text("mine")
    before = tree(bundle.path)
    with pytest.raises(BundleError, match=r"notes\.txt.* does not list"), bundle.edit() as edit:
        edit.stage("notes.txt").write_text("new")
    assert tree(bundle.path) == before


def test_an_edit_never_writes_a_bundle_that_would_not_open(bundle):
    before = tree(bundle.path)
    with pytest.raises(BundleError, match="files does not list"), bundle.edit() as edit:
        edit.add_graph(graph("head"))
    assert tree(bundle.path) == before
