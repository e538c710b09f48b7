from pathlib import Path

import pytest

from edgeseg.bundle import Bundle
from tests.edgeseg.tiny_bundle import make_bundle, make_fake_bundle


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for onnxruntime that no test changes."""
    return make_bundle(tmp_path_factory.mktemp("tiny") / "tiny.bundle").path


@pytest.fixture
def tiny(tiny_path: Path) -> Bundle:
    return Bundle.open(tiny_path)


@pytest.fixture
def fake_bundle(tmp_path: Path) -> Bundle:
    return make_fake_bundle(tmp_path / "fake.bundle")
