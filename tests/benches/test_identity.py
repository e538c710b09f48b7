from pathlib import Path
from shutil import copytree

import pytest

import edgeseg
from edgeseg.benches.identity import engines_sha256, shown_path
from tests.edgeseg.tiny_bundle import make_bundle


def digest(path):
    with edgeseg.open(path, backend="onnxruntime", threads=1) as segmenter:
        return engines_sha256(segmenter)


@pytest.mark.onnx
def test_digest_is_that_of_the_engines_and_not_of_the_place(tiny_path, tmp_path):
    copied = copytree(tiny_path, tmp_path / "elsewhere.bundle")
    assert digest(copied) == digest(tiny_path)
    assert digest(make_bundle(tmp_path / "other.bundle", ((64, 96),)).path) != digest(tiny_path)


def test_path_is_shown_from_the_working_folder_where_it_lies_in_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shown_path(tmp_path / "a/b.bundle") == "a/b.bundle"
    assert shown_path(Path("a/b.bundle")) == "a/b.bundle"
    assert shown_path(tmp_path.parent / "b.bundle") == str(tmp_path.parent / "b.bundle")
