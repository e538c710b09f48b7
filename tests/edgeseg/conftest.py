from pathlib import Path

import pytest

from edgeseg.bundle import Bundle


@pytest.fixture
def tiny(tiny_path: Path) -> Bundle:
    return Bundle.open(tiny_path)
