import subprocess
import sys

import pytest

from edgeseg.backends import BACKENDS, get_backend
from edgeseg.errors import InputError


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_has_its_name_and_a_probe_that_answers(name):
    backend = get_backend(name)
    assert backend.name == name
    probe = backend.probe()
    assert probe.why
    assert probe.works == (probe.device is not None)


def test_unknown_backend_names_those_there_are():
    with pytest.raises(InputError, match="tensorrt, tensorrt_rtx, onnxruntime, fake"):
        get_backend("tensort")


def test_getting_a_backend_imports_no_sdk():
    code = "import sys; from edgeseg.backends import *; from edgeseg import backends as b\n"
    code += "[b.get_backend(n) for n in b.BACKENDS]\n"
    code += "sys.exit(any(n in sys.modules for n in ('onnxruntime', 'tensorrt', 'tensorrt_rtx', 'torch', 'cuda')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
