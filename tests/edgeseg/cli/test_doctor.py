import json
import subprocess
import sys

import pytest

from edgeseg.backends.base import Probe
from edgeseg.cli import doctor, main

PROBES = {
    "tensorrt": Probe(False, None, 'it is not installed; pip install "edgeseg[tensorrt]"'),
    "tensorrt_rtx": Probe(False, None, "no GPU", {"tensorrt_rtx": "1.7.1"}, builds=True),
    "onnxruntime": Probe(True, "cpu-x86_64", "a CPU", {"onnxruntime": "1.31"}),
}


@pytest.fixture
def probes(monkeypatch):
    class Probed:
        def __init__(self, name):
            self.probe = lambda device: PROBES[name]

    monkeypatch.setattr(doctor, "get_backend", Probed)


def test_every_backend_has_its_state_and_the_whole_install_line(probes, capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert 'pip install "edgeseg[tensorrt]"' in out
    assert "tensorrt: does not work" in out
    assert "tensorrt_rtx: builds only" in out
    assert "onnxruntime: works on cpu-x86_64" in out


def test_json_holds_the_probes(probes, capsys):
    assert main(["doctor", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert [item["backend"] for item in body["backends"]] == list(PROBES)
    assert body["backends"][1]["versions"] == {"tensorrt_rtx": "1.7.1"}


def test_doctor_never_imports_torch_or_onnx():
    code = "import sys; from edgeseg.cli import main; main(['doctor'])\n"
    code += "sys.exit(any(name in sys.modules for name in ('torch', 'onnx')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
