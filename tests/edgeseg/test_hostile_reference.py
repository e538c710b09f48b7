"""Hostile reference tensors: npz files that anyone may have written; none may run code or take all the memory."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgeseg.bundle import Bundle
from edgeseg.bundle.digest import digest
from edgeseg.errors import BundleError
from tests.edgeseg.small_bundle import make, rewrite


@pytest.fixture
def bundle(tmp_path):
    return make(tmp_path / "a.bundle")


def relist(path: Path, relative: str) -> None:
    """Writes the true digest of a file into bundle.json, as one who makes a hostile bundle would."""
    spec = digest(path / relative)
    rewrite(path, lambda value: value["files"].update({relative: {"sha256": spec.sha256, "bytes": spec.bytes}}))


def header(shape: str) -> bytes:
    """An .npy file whose header claims a shape, with 8 bytes of data."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(8)


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.npy", content)
    return buffer.getvalue()


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, labels=np.array([print], dtype=object))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"no zip", id="no zip"),
        pytest.param(pickled(), id="pickle"),
        pytest.param(zipped(header("(4000000000, 1000)")), id="claims 16 TB"),
        pytest.param(zipped(header("(-4,)")), id="negative"),
        pytest.param(zipped(header("2")), id="no shape"),
        pytest.param(zipped(header("(2,)")[:-3]), id="truncated"),
        pytest.param(zipped(b"text"), id="no array"),
        pytest.param(zipped(b"\x93NUMPY\x09\x00" + bytes(100)), id="unknown format"),
    ],
)
def test_hostile_reference_tensors_give_one_line(bundle, content):
    (bundle.path / "reference/64x64-0.npz").write_bytes(content)
    relist(bundle.path, "reference/64x64-0.npz")
    with pytest.raises(BundleError, match="damaged"):
        Bundle.open(bundle.path).reference("64x64")


def test_reference_tensors_that_unpack_to_too_much_are_refused(bundle, monkeypatch):
    monkeypatch.setattr("edgeseg.bundle.arrays.LIMIT_BYTES", 10)
    with pytest.raises(BundleError, match="more than"):
        bundle.reference("64x64")
