"""Bundles of which every test gets its own copy, made once."""

import shutil

import pytest

from edgeseg.bundle import Bundle
from edgeseg.engines.choice import choose
from tests.engines.fake_device import Device

PRECISIONS = ("fp16", "int8")


@pytest.fixture(scope="session")
def templates(tmp_path_factory):
    """Outlier in the residual stream → a bundle in fp32, fp16 and int8; never change one."""
    blocks = pytest.importorskip("tests.engines.blocks")  # needs onnx
    folder, made = tmp_path_factory.mktemp("bundles"), {}

    def template(outlier):
        if outlier not in made:
            made[outlier] = blocks.make(folder / f"{outlier}.bundle", *PRECISIONS, outlier=outlier)
        return made[outlier]

    return template


@pytest.fixture
def blocky(templates, tmp_path):
    """A function: a copy of the bundle of `blocks.py` with an outlier of this size."""

    def copy(outlier=1.0):
        shutil.copytree(templates(outlier).path, tmp_path / "a.bundle")
        return Bundle.open(tmp_path / "a.bundle")

    return copy


@pytest.fixture
def cpu():
    """What builds for onnxruntime here."""
    return choose("onnxruntime", ())


@pytest.fixture
def device(monkeypatch):
    """A backend that stands in for a GPU's, and is the one that engines are opened with."""
    made = Device()
    monkeypatch.setattr("edgeseg.selection.get_backend", lambda name, threads=None: made)
    return made
