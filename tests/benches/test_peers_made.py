"""What the peers' sides need is made whole or not at all; and a chain without gates does what the runtime does."""

import shutil

import numpy as np
import pytest

from benches.peers import ebseg, gpu, inputs, made, ungated
from edgeseg.backends.base import Probe
from edgeseg.engines.request import Request
from tests.edgeseg.vocabulary.tiny import DIMENSIONS

SMALL = 64


@pytest.fixture
def commands(monkeypatch):
    """What is called instead of being run."""
    called: list[list[str]] = []
    monkeypatch.setattr(made, "command", lambda words, environment=None: called.append(words))
    return called


@pytest.fixture
def work(tiny_path, tmp_path):
    """A work folder with a small bundle."""
    shutil.copytree(tiny_path, tmp_path / made.BUNDLE)
    return tmp_path


def verbs(commands):
    return [words[2] if words[:2] == ["-m", "edgeseg"] else words[0].rpartition("/")[2] for words in commands]


def test_all_is_made_in_an_empty_folder(tmp_path, commands):
    (tmp_path / made.CHECKPOINT).touch()
    made.bundle(tmp_path)
    assert verbs(commands) == ["export", "build"]


@pytest.mark.onnx
def test_engines_that_an_interrupted_call_did_not_get_to_are_built_at_the_next(work, commands):
    made.bundle(work)
    assert verbs(commands) == ["build"]


@pytest.mark.onnx
def test_int8_graphs_are_made_once_and_their_engines_not_at_all(work, commands):
    made.int8(work)
    assert verbs(commands) == ["build", "quantize"]
    assert "fp32" in commands[0]


@pytest.mark.onnx
def test_engines_of_a_gpu_are_asked_for_each_time_and_not_gated(work, commands, monkeypatch):
    class Backend:
        name = "tensorrt_rtx"

    asked: list[tuple[str, Request]] = []
    monkeypatch.setattr(gpu, "working", lambda: (Backend(), Probe(True, "sm87", "")))
    monkeypatch.setattr("edgeseg.engines.choice.choose", lambda name, targets: name)
    monkeypatch.setattr(
        "edgeseg.engines.builder.make_engines", lambda path, compiler, request, shown: asked.append((compiler, request))
    )
    gpu.fp16_engines(work)
    assert verbs(commands) == ["build", "quantize"]
    assert asked == [("tensorrt_rtx", Request("fp16", ((inputs.SAM_SIZE, inputs.SAM_SIZE),)))]


def test_what_was_cut_short_is_not_there(tmp_path):
    def cut_short():
        with made.whole(tmp_path / "a.onnx") as folder:
            (folder / "a.onnx").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_short()
    assert list(tmp_path.iterdir()) == []


def test_files_and_folders_take_their_places_together(tmp_path):
    with made.whole(tmp_path / "a.onnx", tmp_path / "packages") as folder:
        (folder / "packages").mkdir()
        (folder / "a.onnx").write_text("all")
        assert not (tmp_path / "a.onnx").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "packages"]


@pytest.mark.onnx
def test_chain_without_gates_gives_the_labels_of_the_runtime(work, monkeypatch):
    monkeypatch.setattr(inputs, "EBSEG_SIZE", SMALL)
    monkeypatch.setattr(inputs, "EMBEDDING", DIMENSIONS)
    labels = ungated.chain(work, precision="fp32")()
    assert len(np.unique(labels)) > 1
    assert np.array_equal(labels, ebseg.ours(work, precision="fp32")())
    assert [path.name for path in work.iterdir()] == [made.BUNDLE]
