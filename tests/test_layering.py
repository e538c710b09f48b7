"""The stages do not know each other: the design's table, read off every file; and proof that the reader can see."""

from pathlib import Path

import pytest

from tests.layering import FILE_LINES, FUNCTION_LINES, MAY_IMPORT, findings

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(
    path.relative_to(ROOT).as_posix() for folder in (*MAY_IMPORT, "tests") for path in (ROOT / folder).rglob("*.py")
)


@pytest.mark.parametrize("path", FILES)
def test_file_keeps_the_house_rules(path):
    assert findings((ROOT / path).read_text(), path) == []


def test_the_files_of_every_stage_are_read():
    assert {"edgeseg", "export", "calibration", "engines", "benches", "tests"} <= {path.split("/")[0] for path in FILES}


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("edgeseg/run.py", "import torch"),
        ("edgeseg/run.py", "def f():\n    from torch.nn import functional"),
        ("edgeseg/run.py", "import onnx.helper"),
        ("edgeseg/run.py", "import onnxruntime"),
        ("edgeseg/run.py", "import edgeseg.export.cli"),
        ("edgeseg/run.py", "from edgeseg import engines"),
        ("edgeseg/run.py", "from . import export"),
        ("edgeseg/cli/run.py", "from ..export import cli"),
        ("edgeseg/run.py", "from .benches.latency import measure"),
        ("edgeseg/run.py", "import importlib\nimportlib.import_module('torch')"),
        ("edgeseg/run.py", "from importlib import import_module\nimport_module('edgeseg.export')"),
        ("edgeseg/run.py", "__import__('onnx')"),
        ("edgeseg/run.py", "VERBS = {'export': 'edgeseg.export.cli:export'}"),
        ("edgeseg/cli/__init__.py", "from edgeseg.export.cli import export"),
        ("edgeseg/backends/tensorrt.py", "import tensorrt_rtx"),
        ("edgeseg/backends/tensorrt.py", "import pycuda.driver"),
        ("edgeseg/backends/trt_session.py", "import tensorrt"),
        ("edgeseg/backends/cuda/pycuda.py", "from cuda.bindings import driver"),
        ("export/cli.py", "import tensorrt"),
        ("export/cli.py", "from edgeseg.calibration import fp16"),
        ("export/cli.py", "from ..calibration import fp16"),
        ("export/cli.py", "from edgeseg.export.graph import write"),
        ("export/cli.py", "from export.graph import write"),
        ("export/nets/sam.py", "from ...errors import EdgesegError"),
        ("export/recipe.py", "FILES = 'edgeseg.engines'"),
        ("calibration/fp16.py", "import torch"),
        ("calibration/fp16.py", "import tensorrt"),
        ("engines/build.py", "import torch"),
        ("engines/build.py", "from edgeseg.calibration.fp16 import convert"),
        ("benches/latency.py", "import torch"),
        ("benches/latency.py", "from edgeseg.engines import build"),
        ("training/train.py", "from edgeseg.calibration import fp16"),
        ("training/train.py", "from edgeseg.training.loop import Run"),
        ("edgeseg/run.py", "try:\n    f()\nexcept Exception:\n    pass"),
        ("edgeseg/run.py", "def f(a, b, c, d, e, f): ..."),
        ("tests/test_run.py", "def test_f():\n" + "    f()\n" * FUNCTION_LINES),
        ("tests/test_run.py", "x = 1\n" * (FILE_LINES + 1)),
    ],
)
def test_a_broken_rule_is_reported(path, source):
    assert len(findings(source, path)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "edgeseg/run.py",
            "import json\nimport numpy as np\nfrom PIL import Image\nfrom edgeseg.errors import InputError",
        ),
        ("edgeseg/cli/run.py", "from ..errors import InputError\nfrom edgeseg import schema"),
        ("edgeseg/cli/__init__.py", "VERBS = {'export': 'edgeseg.export.cli:export'}"),
        ("edgeseg/run.py", "TEXT = 'edgeseg.export makes bundles'"),
        ("edgeseg/backends/onnxruntime.py", "def f():\n    import onnxruntime"),
        ("edgeseg/backends/cuda/cuda_python.py", "from cuda.bindings import driver"),
        (
            "export/nets/sam.py",
            "import torch\nfrom ..graph import write\nfrom . import clip\nfrom edgeseg.errors import E",
        ),
        ("export/nets/head.py", "class Head:\n    def forward(self, a, b, c, d, e, f, g): ..."),
        ("export/recipe.py", "FILES = 'edgeseg.export'"),
        ("engines/build.py", "import tensorrt_rtx\nfrom polygraphy import cuda"),
        ("benches/peers/authors.py", "import torch"),
        ("training/train.py", "import torch\nfrom edgeseg.export import cli"),
        ("training/train.py", "from edgeseg.benches.datasets import open_dataset\nfrom .loop import Run"),
        ("edgeseg/run.py", "def f(self, a, b, *, c, d, e, f): ..."),
        ("tests/test_run.py", "def test_f(a, b, c, d, e, f):\n" + "    f()\n" * (FUNCTION_LINES - 1)),
        ("tests/test_run.py", "x = 1\n" * FILE_LINES),
    ],
)
def test_a_kept_rule_is_not_reported(path, source):
    assert findings(source, path) == []
