"""The native label map against `edgeseg.compose`: both must mean the same by a mask, a canvas and a threshold."""

import ctypes
import shutil
import subprocess

import numpy as np
import pytest

from edgeseg.compose import NONE_LABEL, axis_operator, compose_scored
from edgeseg.placement import Placement
from tests.conftest import ROOT

pytestmark = pytest.mark.slow


class Axis(ctypes.Structure):
    _fields_ = (
        ("first", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("pixels", ctypes.c_int32),
        ("cells", ctypes.c_int32),
        ("taps", ctypes.c_int32),
    )


class Scene(ctypes.Structure):
    _fields_ = (
        ("logits", ctypes.c_void_p),
        ("class_probs", ctypes.c_void_p),
        ("queries", ctypes.c_int32),
        ("classes", ctypes.c_int32),
        ("rows", Axis),
        ("columns", Axis),
        ("threshold", ctypes.c_float),
        ("labels", ctypes.c_void_p),
        ("best", ctypes.c_void_p),
    )


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    if shutil.which("cmake") is None:
        pytest.skip("needs cmake and a C++ compiler")
    build = tmp_path_factory.mktemp("native")
    commands = (["cmake", "-S", str(ROOT), "-B", str(build), "-DEDGESEG_CUDA=OFF"], ["cmake", "--build", str(build)])
    for command in commands:
        subprocess.run(command, check=True, capture_output=True)
    return ctypes.CDLL(str(next(build.rglob("libedgeseg_native.*"))))


def table(operator, taps=4):
    """An (outputs, cells) operator as (first, weights)."""
    taps = min(taps, operator.shape[1])
    first = np.minimum((operator != 0).argmax(1), operator.shape[1] - taps).astype(np.int32)
    weights = np.take_along_axis(operator, first[:, None] + np.arange(taps), 1)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    return first, np.ascontiguousarray(weights, np.float32)


def axis(operator, keep):
    first, weights = table(operator)
    keep += [first, weights]
    return Axis(first.ctypes.data, weights.ctypes.data, *operator.shape, weights.shape[1])


@pytest.mark.parametrize(
    ("original", "valid", "canvas"),
    [((96, 128), (96, 128), (96, 128)), ((61, 251), (31, 128), (96, 128)), ((33, 40), (77, 93), (96, 128))],
)
@pytest.mark.parametrize("unlabelled", [0.0, 0.3])
def test_the_native_label_map_is_that_of_the_runtime(native, original, valid, canvas, unlabelled):
    random = np.random.default_rng(3)
    logits = random.normal(0, 6, (20, canvas[0] // 4, canvas[1] // 4)).astype(np.float32)
    probs = (random.dirichlet(np.full(20, 0.2), 37).T).astype(np.float32).copy()
    placement = Placement(original, valid, canvas, True, None)
    scores = np.asarray(compose_scored(logits, probs, placement).best)
    threshold = float(np.quantile(scores, unlabelled)) if unlabelled else 0.0
    expected = compose_scored(logits, probs, placement, threshold)

    sides = zip(logits.shape[1:], canvas, valid, original, strict=True)
    keep: list[np.ndarray] = []
    rows, columns = (axis(axis_operator(*side), keep) for side in sides)
    labels, best = np.empty(original, np.uint16), np.empty(original, np.float32)
    pointers = [array.ctypes.data for array in (logits, probs, labels, best)]
    scene = Scene(*pointers[:2], *probs.shape, rows, columns, threshold, *pointers[2:])
    assert native.edgeseg_compose_host(ctypes.byref(scene), 2) == 0
    np.testing.assert_allclose(best, scores, rtol=1e-5)
    assert (labels == expected.labels).mean() > 0.999
    assert (labels == NONE_LABEL).mean() == pytest.approx(unlabelled, abs=0.01)
