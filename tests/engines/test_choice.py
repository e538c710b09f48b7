import sys

import pytest

from edgeseg.backends.base import Probe
from edgeseg.engines.choice import choose, make
from edgeseg.errors import BackendError, BuildError, InputError

NOWHERE = Probe(False, None, "no GPU", builds=True)


def test_onnxruntime_engines_are_for_this_cpu():
    compiler = choose("onnxruntime", ())
    assert compiler.device.startswith(("cpu-", "cuda-"))
    assert list(compiler.versions) == ["onnxruntime"]


@pytest.mark.tensorrt
def test_targets_choose_the_compiler_that_needs_no_gpu():
    pytest.importorskip("tensorrt_rtx")
    compiler = choose(None, ("sm89", "sm86"))
    assert compiler.device == "sm86+sm89-rtx1.7.1"
    assert not compiler.runs_here


@pytest.mark.tensorrt
@pytest.mark.parametrize(("targets", "found"), [(("sm87",), "does not compile for sm87"), ((), "no GPU that works")])
def test_target_that_cannot_be_is_refused_with_those_that_can(targets, found):
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(BuildError, match=rf"{found}.*sm75,sm80,sm86,sm89,sm120"):
        make("tensorrt_rtx", NOWHERE, targets)


@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt"])
def test_targets_with_a_backend_of_this_machine_are_refused(backend):
    with pytest.raises(BuildError, match="--backend tensorrt_rtx"):
        choose(backend, ("sm89",))


def test_backend_that_does_not_work_is_refused_with_its_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # as if it were not installed
    with pytest.raises(BackendError, match="import tensorrt"):
        choose("tensorrt", ())


def test_unknown_backend_is_refused():
    with pytest.raises(InputError, match="openvino"):
        choose("openvino", ())
