import numpy as np
import pytest

from edgeseg.backends.feed import check_feed
from edgeseg.errors import BackendError
from edgeseg.schema import GraphSpec, TensorSpec

GRAPH = GraphSpec(
    "score",
    "fp32",
    None,
    "score.onnx",
    (),
    (TensorSpec("text", "float32", ("C", 4)), TensorSpec("overlap", "float32", ("C",))),
    (TensorSpec("class_probs", "float32", (1, "C")),),
    {"C": (1, 10, 20)},
)


def feed(**changes):
    return {"text": np.zeros((3, 4), np.float32), "overlap": np.zeros(3, np.float32)} | changes


def test_extents_of_dynamic_axes_are_found():
    assert check_feed(GRAPH, feed()) == {"C": 3}


@pytest.mark.parametrize(
    ("inputs", "word"),
    [
        ({"text": np.zeros((3, 4), np.float32)}, "was given"),
        (feed(more=np.zeros(1)), "more"),
        (feed(text=np.zeros((3, 4))), "float64, not float32"),
        (feed(text=np.zeros((3, 5), np.float32)), r"\(3, 5\)"),
        (feed(text=np.zeros((3, 4, 1), np.float32)), r"\(3, 4, 1\)"),
        (feed(overlap=np.zeros(2, np.float32)), r"overlap has the shape \(2,\)"),
    ],
)
def test_what_does_not_fit_is_named(inputs, word):
    with pytest.raises(BackendError, match=word):
        check_feed(GRAPH, inputs)
