import numpy as np
import onnxruntime
import pytest

from edgeseg.calibration.library import _fill, _net
from edgeseg.calibration.sites import find_sites
from edgeseg.calibration.smooth import ALPHAS, choose, find_groups, fold
from tests.nets import Net, vit

pytestmark = pytest.mark.onnx


def run(model, **inputs):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, inputs)


def test_folded_factors_do_not_change_the_function():
    model = vit(blocks=2)
    net = _net(model)
    groups = find_groups(net.graph, find_sites(net.model))
    assert len(groups) == 4
    for index, group in enumerate(groups):
        factors = np.exp(np.random.default_rng(index).uniform(-3, 3, 64)).astype(np.float32)
        fold(net, group, factors)
    _fill(net)
    x = np.random.default_rng(9).standard_normal((1, 36, 64)).astype(np.float32)
    expected, found = run(model, x=x)[0], run(net.model, x=x)[0]
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    assert not np.array_equal(found, expected)


def shared(*, outside):
    """One norm's scale and one weight used on two streams, as in CLIP's tail; `outside`: by a third reader too."""
    net = Net()
    scale, shift, weight = net.const(np.linspace(0.5, 2, 32)), net.const(np.zeros(32)), net.weight(32, 32)
    parts = []
    for name in ("x", "z"):
        normed = net.op("LayerNormalization", name, scale, shift, axis=-1)
        parts += [net.op("MatMul", normed, weight), net.op("MatMul", normed, net.weight(32, 32))]
    parts += [net.op("MatMul", "x", weight)] if outside == "weight" else []
    parts += [net.op("Mul", "x", scale)] if outside == "scale" else []
    y = net.op("Sum", *parts)
    return net.model({"x": [4, 32], "z": [4, 32]}, {"y": [4, 32]}, {"y": y})


def test_norms_that_share_parameters_are_one_group():
    model = shared(outside=None)
    groups = find_groups(model.graph, find_sites(model))
    assert [len(group.sites) for group in groups] == [2]
    assert len(groups[0].weights) == 3
    net = _net(model)
    fold(net, groups[0], np.linspace(0.1, 9, 32).astype(np.float32))
    _fill(net)
    feed = {name: np.random.default_rng(3).standard_normal((4, 32)).astype(np.float32) for name in "xz"}
    assert np.allclose(run(net.model, **feed)[0], run(model, **feed)[0], atol=1e-5)


@pytest.mark.parametrize("outside", ["weight", "scale"])
def test_parameters_that_are_read_elsewhere_make_no_group(outside):
    model = shared(outside=outside)
    assert find_groups(model.graph, find_sites(model)) == []


def outliers(gain):
    random = np.random.default_rng(0)
    rows = random.standard_normal((128, 64)).astype(np.float32)
    rows[:, 3] *= gain
    return rows, [random.standard_normal((64, 32)).astype(np.float32) / 8 for _ in range(2)]


def test_an_outlier_channel_is_smoothed():
    rows, weights = outliers(100)
    alpha, factors = choose(np.abs(rows).max(axis=0), rows, weights)
    assert alpha in ALPHAS
    assert factors[3] > 5 * np.median(factors)


def test_smoothing_is_chosen_by_error_and_not_done_for_its_own_sake():
    rows, weights = outliers(1)
    signs = [np.sign(weight) for weight in weights]  # int8 holds these exactly, and what is multiplied by them
    alpha, factors = choose(np.linspace(1, 9, 64, dtype=np.float32), np.sign(rows), signs)
    assert alpha == 0
    assert np.array_equal(factors, np.ones(64))


def test_a_channel_that_is_always_zero_is_left_alone():
    rows, weights = outliers(100)
    rows[:, 7] = 0
    _, factors = choose(np.abs(rows).max(axis=0), rows, weights)
    assert factors[7] == 1
    assert np.isfinite(factors).all()
