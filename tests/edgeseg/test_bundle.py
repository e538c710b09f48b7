"""Opening a bundle and reading from it: every file is checked, and each only once."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

import edgeseg.bundle.digest
from edgeseg.errors import BundleError
from tests.edgeseg.small_bundle import make, tree


@pytest.fixture
def bundle(tmp_path):
    return make(tmp_path / "a.bundle")


def listed(bundle):
    """The content of every file that bundle.json has to list."""
    return {path: content for path, content in tree(bundle.path).items() if path != "bundle.json"}


def test_every_file_of_a_new_bundle_is_listed_and_readable(bundle):
    bundle.verify()
    assert bundle.file("tokenizer.json").read_text() == "{}"
    assert bundle.precisions() == ("fp32", "fp16")
    assert set(bundle.manifest.files) == set(listed(bundle))
    assert bundle.size_bytes == sum(map(len, listed(bundle).values()))


def test_opening_needs_no_numpy(bundle):
    code = f"import sys; from edgeseg import Bundle; Bundle.open({str(bundle.path)!r}); print('numpy' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout == "False\n"


def test_graph_falls_back_to_the_one_for_any_canvas(bundle):
    assert bundle.graph("sam", "fp16", (64, 96)).canvas == (64, 96)
    assert bundle.graph("text", "fp32", (64, 96)).canvas is None


@pytest.mark.parametrize("asked", [("sam", "int8", (64, 64)), ("sam", "fp32", (32, 32)), ("sam", "fp32", None)])
def test_missing_graph_names_those_there_are(bundle, asked):
    with pytest.raises(BundleError, match="the bundle holds fp32 64x64, fp32 64x96, fp16 64x64, fp16 64x96"):
        bundle.graph(*asked)


def test_graph_files_are_checked_with_their_weights(bundle):
    spec = bundle.graph("sam", "fp32", (64, 64))
    assert bundle.graph_files(spec) == bundle.path / spec.file
    (bundle.path / spec.data[0]).write_text("other")
    with pytest.raises(BundleError, match=r"graphs/fp32/sam\.bin"):
        bundle.graph_files(spec)


def test_reference_tensors_come_by_name(bundle):
    (arrays,) = bundle.reference("64x64")
    np.testing.assert_array_equal(arrays["labels"], [[0, 1, 2], [3, 4, 5]])
    with pytest.raises(BundleError, match="canvas 32x32"):
        bundle.reference("32x32")


def test_digest_is_computed_once_and_again_after_a_change(bundle, monkeypatch):
    reads, read = itertools.count(), edgeseg.bundle.digest._read
    monkeypatch.setattr(edgeseg.bundle.digest, "_read", lambda *args: (next(reads), read(*args))[1])
    monkeypatch.setattr(edgeseg.bundle.digest, "_KNOWN", {})
    bundle.file("tokenizer.json")
    bundle.file("tokenizer.json")
    assert next(reads) == 1
    (bundle.path / "tokenizer.json").write_text("[]")
    with pytest.raises(BundleError, match="changed since"):
        bundle.file("tokenizer.json")
    assert next(reads) == 3  # the count above took number 1, and this read 2


def test_verify_reports_every_byte(bundle):
    calls = []
    bundle.verify(lambda done, total: calls.append((done, total)))
    assert calls[-1] == (bundle.size_bytes, bundle.size_bytes)
