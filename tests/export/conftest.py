import functools
import hashlib
import shutil
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FULL: dict = {}  # variant → (folder, what its export gave)


@pytest.fixture(autouse=True)
def one_thread(request):
    """Small tensors on one thread: on a busy machine the threads of a small product wait for each other."""
    import torch

    before = torch.get_num_threads()
    if request.node.get_closest_marker("slow") is None:
        torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small_bundle(made_once):
    """Gives the bundle of a small EBSeg, "b" or "l", made once."""
    from edgeseg.export.bundle import export_bundle
    from tests.export.small import write_small

    canvases = {"b": [(96, 160), (64, 64)], "l": [(128, 224)]}

    def give(like):
        def make(folder):
            return export_bundle(write_small(folder, like), canvases[like], folder / "small.bundle")

        return made_once(f"small-{like}", make)

    return functools.cache(give)


@pytest.fixture(scope="session")
def full_bundle(tmp_path_factory):
    """Gives (bundle, peak memory of its export in KiB) of EBSeg-B or -L at full size; takes minutes, once a session."""
    from tests.export.full_size import export

    def give(variant):
        if variant not in FULL:
            folder = tmp_path_factory.mktemp(f"full-{variant}")
            FULL[variant] = folder, export(folder, variant)
        return FULL[variant][1]

    return give


@pytest.fixture(scope="session")
def small_use(made_once):
    """The bundle of a small CLIP behind a small SAM."""
    from tests.export.small_use import write_small_use

    return made_once("small-use", write_small_use)


@pytest.fixture(scope="session")
def small_tapped(made_once):
    """The bundle of a small CLIP and DINOv2 behind a small SAM."""
    from tests.export.small_taps import write_small_tapped

    return made_once("small-tapped", write_small_tapped)


@pytest.fixture(scope="session")
def small_sam(made_once):
    """The bundle of a small SAM."""
    from tests.export.small_use import write_small_sam

    return made_once("small-sam", write_small_sam)


@pytest.fixture(scope="session")
def mobile_bundle(tmp_path_factory, shared):
    """The bundle of MobileSAM's published weights; takes half a minute, once a session."""
    from edgeseg.export.bundle import Checkpoint, export_bundle

    return export_bundle(
        Checkpoint(shared / "data/mobile_sam.pt"), [], tmp_path_factory.mktemp("mobile-sam") / "m.bundle"
    )


def pytest_runtest_teardown(nextitem):
    """Bundles at full size are gigabytes: they go with the last test of this folder, not with the session."""
    if nextitem is None or HERE not in nextitem.path.parents:
        while FULL:
            shutil.rmtree(FULL.popitem()[1][0])


def tree(folder):
    """Path → digest of everything below a folder, hidden files too."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def place(tmp_path_factory, small_bundle):
    """A folder with a checkpoint and, as `old.bundle`, an earlier bundle; and a check that it is as it was."""
    from edgeseg.bundle import Bundle
    from tests.export.small import write_small

    folder = tmp_path_factory.mktemp("place")
    checkpoint = write_small(folder, text=False)
    shutil.copytree(small_bundle("b").path, folder / "old.bundle")
    before = tree(folder)

    def unchanged():
        assert tree(folder) == before
        assert sorted(path.name for path in folder.iterdir()) == ["old.bundle", "small-b.pth"]
        Bundle.open(folder / "old.bundle").verify()

    return folder, checkpoint, unchanged
