from collections.abc import Iterator
from pathlib import Path

import pytest

import edgeseg
from edgeseg.benches.datasets import Dataset, open_dataset
from edgeseg.segmenter import Segmenter
from tests.benches.trees import grey, photo
from tests.edgeseg.tiny_bundle import CLASSES

SIZES = [(48, 64), (64, 64), (40, 90), (64, 96), (30, 33), (50, 70), (64, 80)]


@pytest.fixture
def segmenter(tiny_path: Path) -> Iterator[Segmenter]:
    with edgeseg.open(tiny_path, backend="onnxruntime", threads=1) as opened:
        yield opened


def make_folder(root: Path, sizes=SIZES) -> Path:
    """Photos and labels of the tiny bundle's classes, some pixels not scored."""
    for number, size in enumerate(sizes):
        photo(root / f"images/{number}.png", number, size)
        grey(root / f"labels/{number}.png", [number % 3, 0, 1, 255, 2, 2, 1], size)
    (root / "classes.txt").write_text("\n".join(CLASSES))
    return root


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled folder that no test changes."""
    return make_folder(tmp_path_factory.mktemp("folder"))


@pytest.fixture
def dataset(folder: Path) -> Dataset:
    return open_dataset("folder", folder)
