import dataclasses
import json

import pytest

from edgeseg.bundle import Bundle
from edgeseg.cli import main
from edgeseg.vocabulary import Vocabulary
from tests.edgeseg.vocabulary.tiny import FolderBundle, write_tokenizer

pytestmark = pytest.mark.onnx


@pytest.fixture
def vocab(tmp_path, monkeypatch, capsys):
    """Runs `edgeseg vocab` on a bundle that holds just the tiny text encoder; gives exit code, stdout and stderr."""
    write_tokenizer(tmp_path)
    parts = FolderBundle(tmp_path)
    monkeypatch.setenv("EDGESEG_CACHE", str(tmp_path / "cache"))
    manifest = dataclasses.replace(parts.manifest, graphs=(), files={}, canvases=((32, 32),))
    with Bundle.create(tmp_path / "tiny.bundle", manifest) as edit:
        for name in ("text.onnx", "tokenizer.json"):
            edit.stage(name).write_bytes((tmp_path / name).read_bytes())
        edit.add_graph(parts.manifest.graphs[0])

    def run(*words):
        line = ["vocab", str(tmp_path / "tiny.bundle"), "-o", str(tmp_path / "names.npz"), *words]
        code = main(line)
        return code, *capsys.readouterr()

    return run


def test_a_vocabulary_file_is_written_and_one_line_printed(vocab, tmp_path):
    code, out, _ = vocab("--classes", "cat, wooden table", "--training", "wooden table")
    assert code == 0
    assert out.endswith("names.npz: 2 classes, of which 2 were seen in training\n")
    assert Vocabulary.load(tmp_path / "names.npz").overlap.tolist() == [1, 1]


def test_json_lists_the_classes_and_how_many_were_encoded(vocab):
    vocab("--classes", "cat")
    body = json.loads(vocab("--classes", "cat, cow", "--json", "--backend", "onnxruntime")[1])
    assert (body["schema"], body["command"], body["encoded"], body["dimensions"]) == (1, "vocab", 1, 8)
    assert body["classes"] == [{"name": "cat", "training": True}, {"name": "cow", "training": False}]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ((), "no option names any class"),
        (("--classes", "cat, cat"), "'cat' and 'cat' are the same prompt"),
        (("--classes", ""), "the class list is empty"),
        (("--dataset", "ade20k"), "ade20k-150"),
        (("--classes", "cat", "--backend", "abacus"), "abacus"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_exit_code_3(vocab, tmp_path, words, found):
    code, out, err = vocab(*words)
    assert (code, out) == (3, "")
    assert found in err
    assert err.count("\n") == 1
    assert not (tmp_path / "names.npz").exists()


def test_a_changed_text_encoder_is_refused(vocab, tmp_path):
    graph = tmp_path / "tiny.bundle" / "text.onnx"
    graph.write_bytes(graph.read_bytes().replace(b"text", b"test", 1))
    code, _, err = vocab("--classes", "cat")
    assert code == 5
    assert "text.onnx" in err
    assert Bundle.open(tmp_path / "tiny.bundle").manifest.name == "tiny"


def test_a_bank_describes_its_own_classes_or_those_that_are_named(vocab, tmp_path):
    bank = tmp_path / "bank.json"
    bank.write_text(json.dumps({"schema": 1, "classes": {"cow": {"colour": ["red"]}, "cat": {"shape": ["fat"]}}}))
    assert vocab("--bank", str(bank), "--attributes", "shape", "--classes", "cat")[0] == 0
    described = Vocabulary.load(tmp_path / "names.npz")
    assert vocab("--bank", str(bank))[0] == 0
    assert Vocabulary.load(tmp_path / "names.npz").names == ("cow", "cat")
    assert vocab("--classes", "cat")[0] == 0
    assert abs(described.embeddings - Vocabulary.load(tmp_path / "names.npz").embeddings).max() > 1e-3
    code, _, err = vocab("--classes", "cat", "--attributes", "shape")
    assert (code, "give --bank too" in err) == (3, True)
