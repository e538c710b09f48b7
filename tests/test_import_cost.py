"""`import edgeseg` and `edgeseg --help` load no engine SDK and are quick; and proof that a loaded SDK would be seen."""

import resource
import subprocess
import sys

import pytest

HEAVY = ("torch", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx", "pycuda", "cuda")
STATEMENTS = {
    "import edgeseg": "import edgeseg",
    "edgeseg --help": "import sys\nsys.argv = ['edgeseg', '--help']\nfrom edgeseg.cli import main\n"
    "try:\n    main()\nexcept SystemExit:\n    pass",
}


def loaded_by(statement: str) -> list[str]:
    """Which of `HEAVY` a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport sys\nprint('loaded', *(name for name in {HEAVY} if name in sys.modules))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return process.stdout.splitlines()[-1].split()[1:]


def user_seconds(statement: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    loaded_by(statement)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
def test_loads_no_sdk(statement):
    assert loaded_by(statement) == []


def test_a_download_loads_no_torch():
    assert "torch" not in loaded_by("import edgeseg.export.download")


@pytest.mark.onnx
def test_a_loaded_sdk_would_be_seen():
    assert "onnx" in loaded_by("import edgeseg, onnx")


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
def test_takes_less_than_half_a_second_of_user_time(statement):
    assert min(user_seconds(statement) for _ in range(3)) < 0.5
