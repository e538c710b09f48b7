"""A search for a budget that Ctrl-C, a full disk or a kill cuts short, as the command line meets it."""

import errno
import shutil

import numpy as np
import pytest

from edgeseg.bundle import Bundle
from edgeseg.calibration.sensitivity.ledger import Ledger
from edgeseg.calibration.sensitivity.maker import Mixtures
from edgeseg.calibration.sensitivity.trials import Trials
from edgeseg.cli import main
from edgeseg.errors import INTERRUPTED, StorageError
from tests.calibration.photo_bundle import write_photos
from tests.calibration.sensitivity.toy import make
from tests.edgeseg.interruptions import cut_at, terminated_at

pytestmark = pytest.mark.onnx

PRESSED, FULL = KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")

# What is cut short, at which call of it, by what, and the exit code.
CUTS = {
    "tensors of the exact chain": (np, "savez", 1, FULL, StorageError.exit_code),
    "record of the trials": (Ledger, "save", 2, FULL, StorageError.exit_code),
    "graphs of a trial": (Trials, "_mixed", 3, FULL, StorageError.exit_code),
    "a trial": (Trials, "_mixed", 5, PRESSED, INTERRUPTED),
    "graphs that were found": (Mixtures, "_forms", 0, FULL, StorageError.exit_code),
}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A bundle in two precisions, and photos beside it."""
    folder = tmp_path_factory.mktemp("cut")
    write_photos(folder / "photos", 3)
    bundle = make(folder / "toy.bundle", blocks=2)
    assert quantize(bundle.path) == 0
    return bundle


def command(path):
    return ["quantize", path, "--precision", "mixed", "--budget", 3, "--images", path.with_name("photos")]


def quantize(path):
    return main(list(map(str, command(path))))


@pytest.mark.parametrize(("owner", "name", "step", "error", "code"), CUTS.values(), ids=CUTS)
def test_bundle_is_as_it_was_and_the_next_search_ends_as_if_nothing_had_been(
    original, tmp_path, monkeypatch, owner, name, step, error, code
):
    path = shutil.copytree(original.path, tmp_path / "toy.bundle")
    shutil.copytree(original.path.with_name("photos"), tmp_path / "photos")
    before, tree = Bundle.open(path).manifest, sorted(path.rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, method(cut_at(step, getattr(owner, name), error)))
        assert quantize(path) == code
    assert Bundle.open(path).manifest == before
    assert sorted(path.rglob("*")) == tree
    work = tmp_path / ".toy.bundle.sensitivity"
    assert {file.suffix for file in work.glob("[!.]*")} <= {".npz", ".json"}
    assert quantize(path) == 0
    assert Bundle.open(path).manifest == before
    assert not work.exists()


def test_search_that_is_terminated_goes_on(original, tmp_path):
    path = shutil.copytree(original.path, tmp_path / "toy.bundle")
    shutil.copytree(original.path.with_name("photos"), tmp_path / "photos")
    before = Bundle.open(path).manifest
    terminated_at(5, "edgeseg.calibration.sensitivity.trials:Trials:_mixed", command(path))
    assert Bundle.open(path).manifest == before
    assert (tmp_path / ".toy.bundle.sensitivity/trials.json").is_file()
    assert quantize(path) == 0
    assert Bundle.open(path).manifest == before
    assert not (tmp_path / ".toy.bundle.sensitivity").exists()


def method(call):
    """A function that can stand in a class, too."""

    def bound(*args, **options):
        return call(*args, **options)

    return bound
