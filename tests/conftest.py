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
NEEDS = {"torch": ["torch"], "onnx": ["onnx"], "tensorrt": ["tensorrt", "tensorrt_rtx"]}  # any one of the list will do


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
    for marker, packages in NEEDS.items():
        if item.get_closest_marker(marker) and not any(map(importlib.util.find_spec, packages)):
            skip_or_fail(f"needs {' or '.join(packages)}: pip install -e '.[host,rtx]'")
    if item.get_closest_marker("gpu") and gpu_count() == 0:
        pytest.skip("no NVIDIA GPU")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the work tree: oracles and data sets that are too large for the repository."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        skip_or_fail("the folder ../shared with oracles and data is not there")
    return folder
