import json
import shutil

import numpy as np
import pytest

from edgeseg.bundle import Bundle
from edgeseg.cli import main
from edgeseg.errors import BundleError, GateError

pytestmark = pytest.mark.onnx


@pytest.fixture
def own(tiny, tmp_path):
    """A copy that a test may damage."""
    shutil.copytree(tiny.path, tmp_path / "own.bundle")
    return Bundle.open(tmp_path / "own.bundle")


def test_good_bundle_passes(tiny, capsys):
    assert main(["verify", str(tiny.path)]) == 0
    out = capsys.readouterr().out
    assert "mask_logits" in out
    assert "text_embedding" in out
    assert "FAILED" not in out


def test_json_holds_every_comparison(tiny, capsys):
    assert main(["verify", str(tiny.path), "--json", "--backend", "onnxruntime", "--precision", "fp32"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert (body["command"], body["passed"], body["failures"]) == ("verify", True, [])
    assert len(body["tensors"]) == 33
    assert {check["agreement"] for check in body["labels"]} == {1.0}


def test_changed_byte_is_found_also_in_a_file_that_the_check_does_not_use(own, capsys):
    path = own.path / "tokenizer.json"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    assert main(["verify", str(own.path)]) == BundleError.exit_code
    assert "tokenizer.json" in capsys.readouterr().err


def test_results_that_differ_exit_with_8_and_are_shown(own, capsys):
    stored = own.reference("64x64")[0]
    stored["tensor:embedding_b"] = np.negative(stored["tensor:embedding_b"])
    with own.edit() as edit:
        np.savez(edit.stage("reference/64x64-0.npz"), **stored)
    assert main(["verify", str(own.path)]) == GateError.exit_code
    out, err = capsys.readouterr()
    assert out.count("FAILED") == 1
    assert "embedding_b of clip_tail at 64x64" in err
    assert main(["verify", str(own.path), "--json"]) == GateError.exit_code
    assert json.loads(capsys.readouterr().out)["passed"] is False


def test_bundle_without_references_is_refused(fake_bundle, capsys):
    assert main(["verify", str(fake_bundle.path), "--backend", "fake"]) == BundleError.exit_code
    assert "no reference tensors" in capsys.readouterr().err
