"""`build --precision auto`, cut short by Ctrl-C, a full disk or a kill at each of its steps."""

import errno
import functools

import pytest

import edgeseg
from edgeseg.bundle import Bundle
from edgeseg.cli import main
from edgeseg.engines import alone, auto, timing
from edgeseg.errors import INTERRUPTED, StorageError
from tests.edgeseg.interruptions import cut_at, terminated_at
from tests.engines.fake_device import DeviceCompiler

pytestmark = pytest.mark.onnx

PRESSED, FULL = KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")

# What is cut short, at which call of it, by what, and the exit code.
CUTS = {
    "compiling": (DeviceCompiler, "compile", 4, PRESSED, INTERRUPTED),
    "writing an engine": (DeviceCompiler, "compile", 4, FULL, StorageError.exit_code),
    "gating": (auto, "check", 1, PRESSED, INTERRUPTED),
    "timing": (alone, "measure", 2, PRESSED, INTERRUPTED),
    "gating together": (auto, "check_plan", 0, PRESSED, INTERRUPTED),
    "writing the choice": (auto._Auto, "_text", 0, FULL, StorageError.exit_code),
    "removing": (auto._Auto, "_remove_failed", 0, PRESSED, INTERRUPTED),
}


@pytest.fixture
def build(device, monkeypatch):
    """A function: builds a bundle on the device with the command line; gives the exit code."""
    monkeypatch.setattr(alone, "measure", functools.partial(timing.measure, clock=device.clock))
    monkeypatch.setattr("edgeseg.engines.choice.choose", lambda *_: DeviceCompiler())
    device.seconds = {("sam", "int8"): 0.25, ("head", "fp16"): 0.5}
    return lambda bundle: main(["build", str(bundle.path), "--precision", "auto"])


def chosen(bundle):
    (selection,) = Bundle.open(bundle.path).manifest.selections
    return selection.precisions


def left_behind(bundle):
    return [path.name for path in bundle.path.iterdir() if path.name.startswith(".stage-")]


@pytest.mark.parametrize(("owner", "name", "step", "error", "code"), CUTS.values(), ids=CUTS)
def test_bundle_is_whole_afterwards_and_the_next_build_ends_as_if_nothing_had_been(
    blocky, build, monkeypatch, capsys, owner, name, step, error, code
):
    bundle = blocky()
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, method(cut_at(step, getattr(owner, name), error)))
        assert build(bundle) == code
    assert capsys.readouterr().out == ""
    Bundle.open(bundle.path).verify()
    assert left_behind(bundle) == []
    assert build(bundle) == 0
    assert chosen(bundle) == {
        "sam": "int8", "clip_trunk": "fp32", "head": "fp16", "clip_tail": "fp32", "score": "fp32", "text": "fp32"
    }  # fmt: skip


def method(call):
    """A function that can stand in a class, too."""

    def bound(*args, **options):
        return call(*args, **options)

    return bound


def test_build_that_is_terminated_while_it_writes_leaves_a_bundle_that_the_next_one_completes(blocky):
    bundle, words = blocky(), ["--backend", "onnxruntime", "--precision", "auto"]
    compiling = "edgeseg.engines.onnxruntime:OnnxRuntimeCompiler:compile"
    terminated_at(4, compiling, ["build", bundle.path, *words])
    assert len(left_behind(bundle)) == 1
    Bundle.open(bundle.path).verify()
    assert Bundle.open(bundle.path).manifest.selections == ()
    assert main(["build", str(bundle.path), *words]) == 0
    assert left_behind(bundle) == []
    assert len(Bundle.open(bundle.path).manifest.selections) == 1


def test_earlier_choice_outlives_a_build_that_is_cut_short(blocky, build, monkeypatch):
    bundle = blocky()
    assert build(bundle) == 0
    before = Bundle.open(bundle.path).manifest
    with monkeypatch.context() as patch:
        patch.setattr(auto, "check_plan", cut_at(0, auto.check_plan, PRESSED))
        assert build(bundle) == INTERRUPTED
    assert Bundle.open(bundle.path).manifest.selections == before.selections
    with edgeseg.open(bundle.path) as segmenter:
        assert segmenter.plan.precision == "auto"
