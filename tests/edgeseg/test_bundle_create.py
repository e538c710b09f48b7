"""Making a bundle, and replacing one: it appears complete or not at all, and nothing else is ever replaced."""

import errno
import os

import pytest

from edgeseg.bundle import Bundle
from edgeseg.errors import BundleError, StorageError
from tests.edgeseg.interruptions import cut_at, killed_at
from tests.edgeseg.small_bundle import make, manifest, tree


@pytest.fixture
def bundle(tmp_path):
    return make(tmp_path / "a.bundle")


def overwrite(path):
    with Bundle.create(path, manifest(name="second"), overwrite=True) as edit:
        edit.stage("other.json").write_text("{}")


def test_only_what_was_staged_gets_into_a_new_bundle(tmp_path):
    with Bundle.create(tmp_path / "a.bundle", manifest()) as edit:
        edit.stage("tokenizer.json").write_text("{}")
        edit.stage("tokenizer.json").with_name("stray").write_text("stray")
    assert sorted(tree(tmp_path)) == ["a.bundle/bundle.json", "a.bundle/tokenizer.json"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_a_creation_cut_short_leaves_nothing(tmp_path, error):
    def create():
        with Bundle.create(tmp_path / "a.bundle", manifest()) as edit:
            edit.stage("tokenizer.json").write_text("{}")
            raise error

    with pytest.raises((KeyboardInterrupt, StorageError)):
        create()
    assert os.listdir(tmp_path) == []


def test_what_is_in_the_place_of_a_new_bundle_is_kept(bundle, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("photo")
    before = tree(tmp_path)
    for path, overwrite in ((bundle.path, False), (tmp_path / "photos", True), (tmp_path / "photos" / "a.jpg", True)):
        with pytest.raises(BundleError, match="choose another place"), Bundle.create(path, manifest(), overwrite):
            pytest.fail("the block must not run")
    assert tree(tmp_path) == before


def test_an_empty_folder_is_taken_and_a_missing_parent_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with Bundle.create(tmp_path / "empty", manifest()):
        pass
    assert Bundle.open(tmp_path / "empty").manifest.files == {}
    with pytest.raises(StorageError, match="there is no folder"), Bundle.create(tmp_path / "no" / "a", manifest()):
        pass


def test_overwriting_replaces_the_whole_bundle(bundle, tmp_path):
    overwrite(bundle.path)
    assert sorted(tree(tmp_path)) == ["a.bundle/bundle.json", "a.bundle/other.json"]
    assert Bundle.open(bundle.path).manifest.name == "second"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.EIO, "broken")])
def test_an_overwriting_cut_short_at_any_step_keeps_the_old_bundle(bundle, tmp_path, monkeypatch, error):
    before, original = tree(tmp_path), os.rename
    for step in range(3):  # the staged file, the old bundle, the new one
        monkeypatch.setattr(os, "rename", cut_at(step, original, error))
        with pytest.raises((KeyboardInterrupt, StorageError)):
            overwrite(bundle.path)
        monkeypatch.setattr(os, "rename", original)
        assert tree(tmp_path) == before
        assert os.listdir(tmp_path) == ["a.bundle"]


def test_a_bundle_that_was_moved_aside_is_still_in_the_way_of_a_new_one(bundle, tmp_path):
    bundle.path.rename(tmp_path / ".a.bundle.old-1")
    with pytest.raises(BundleError, match="a bundle is there already"), Bundle.create(bundle.path, manifest()):
        pass
    Bundle.open(bundle.path).verify()


def test_a_process_killed_at_any_step_of_overwriting_leaves_the_old_bundle_or_the_new(tmp_path):
    step, names = 0, []
    while True:
        folder = tmp_path / str(step)
        folder.mkdir()
        path = make(folder / "a.bundle").path
        code = f"with Bundle.create({str(path)!r}, manifest(name='new'), True) as edit: edit.stage('a').write_text('a')"
        killed = killed_at(step, code)
        found = Bundle.open(path)
        found.verify()
        names.append(found.manifest.name)
        with Bundle.create(path, manifest(name="last"), True):
            pass
        assert os.listdir(folder) == ["a.bundle"]
        if not killed:
            break
        step += 1
    assert names == sorted(names)  # ebseg-b, ..., new
    assert {*names} == {"ebseg-b", "new"}
    assert step >= 3
