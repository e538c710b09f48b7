import numpy as np
import onnx
import onnxruntime
import pytest

from edgeseg.calibration.library import _fill, _net
from edgeseg.calibration.opset import raise_opset
from edgeseg.errors import BuildError
from tests.nets import Net

pytestmark = pytest.mark.onnx

REDUCTIONS = ["ReduceL2", "ReduceMean", "ReduceMax", "ReduceSumSquare", "ReduceSum"]


@pytest.mark.parametrize("kind", REDUCTIONS)
@pytest.mark.parametrize("axes", [True, False])
def test_reductions_keep_their_meaning(kind, axes):
    net = Net()
    if kind == "ReduceSum":
        y = net.op(kind, "x", *([net.const(np.array([-1]))] if axes else []))
    else:
        y = net.op(kind, "x", axes=[-1]) if axes else net.op(kind, "x")
    assert_same(net.model({"x": [3, 4]}, {"y": [3, 1] if axes else [1, 1]}, {"y": y}))


@pytest.mark.parametrize("sizes", [True, False])
def test_split_keeps_its_meaning(sizes):
    net = Net()
    inputs = ["x", net.const(np.array([1, 3]))] if sizes else ["x"]
    net.nodes.append(onnx.helper.make_node("Split", inputs, ["a", "b"], name="/Split", axis=1))
    assert_same(net.model({"x": [3, 4]}, {"y": [3, 1] if sizes else [3, 2]}, {"y": "a"}))


def assert_same(model):
    net = _net(model)
    raise_opset(net)
    _fill(net)
    onnx.checker.check_model(net.model, full_check=True)
    assert net.model.opset_import[0].version == 19
    feed = {"x": np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)}
    expected, found = (
        onnxruntime.InferenceSession(m.SerializeToString()).run(None, feed)[0] for m in (model, net.model)
    )
    assert np.array_equal(expected, found)


def test_a_later_opset_stays():
    net = Net()
    model = net.model({"x": [4]}, {"y": [4]}, {"y": net.op("Sigmoid", "x")})
    model.opset_import[0].version = 20
    changed = _net(model)
    raise_opset(changed)
    assert changed.model.opset_import[0].version == 20


def test_an_earlier_opset_is_refused():
    net = Net()
    model = net.model({"x": [4]}, {"y": [4]}, {"y": net.op("Sigmoid", "x")})
    model.opset_import[0].version = 13
    with pytest.raises(BuildError, match="it has opset 13"):
        raise_opset(_net(model))
