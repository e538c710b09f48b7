import numpy as np
import pytest

from edgeseg.backends.fake import FakeBackend
from edgeseg.errors import BackendError
from tests.edgeseg.backends.test_feed import GRAPH, feed


def test_outputs_follow_the_specification_and_repeat():
    first, second = (FakeBackend().open(None, GRAPH).run(feed())["class_probs"] for _ in range(2))
    assert first.shape == (1, 3)
    assert first.dtype == np.float32
    assert np.array_equal(first, second)


def test_calls_are_recorded_and_outputs_can_be_given():
    backend = FakeBackend({"score": lambda inputs: {"class_probs": inputs["overlap"][None] + 1}})
    session = backend.open(None, GRAPH)
    made = session.run({name: session.upload(array) for name, array in feed().items()})
    assert np.array_equal(session.download(made["class_probs"]), [[1, 1, 1]])
    assert backend.calls == [("score", {"text": (3, 4), "overlap": (3,)})]


def test_bad_feed_and_closed_session_are_refused():
    session = FakeBackend().open(None, GRAPH)
    with pytest.raises(BackendError, match="float64"):
        session.run(feed(text=np.zeros((3, 4))))
    session.close()
    with pytest.raises(BackendError, match="closed"):
        session.run(feed())


def test_probe_says_what_it_was_told():
    assert FakeBackend().probe().device == "fake"
    assert not FakeBackend(works=False).probe().works
