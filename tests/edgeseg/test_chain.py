from contextlib import contextmanager

import numpy as np
import pytest

from edgeseg.backends.fake import FakeBackend
from edgeseg.chain import Chain, Link
from edgeseg.errors import BundleError
from edgeseg.schema import GraphSpec, TensorSpec


def graph(name: str, inputs: str, outputs: str) -> GraphSpec:
    reads, gives = (tuple(TensorSpec(n, "float32", (2,)) for n in names.split()) for names in (inputs, outputs))
    return GraphSpec(name, "fp32", (8, 8), f"{name}.onnx", (), reads, gives)


DIAMOND = [graph("join", "b c", "d"), graph("left", "a", "b"), graph("right", "a", "c"), graph("root", "image", "a")]


def chain(graphs, streams=(), backend=None) -> Chain:
    backend = backend or FakeBackend()
    return Chain([Link(spec, backend.open(None, spec)) for spec in graphs], streams)


def add(*names, to):
    return lambda inputs: {to: sum(inputs[name] for name in names) + np.float32(1)}


ADDING = {
    "root": add("image", to="a"),
    "left": add("a", to="b"),
    "right": add("a", to="c"),
    "join": add("b", "c", to="d"),
}
IMAGE = {"image": np.zeros(2, np.float32)}


class Recorder:
    """A stream that writes down what it is told."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    def record(self):
        return self.name

    def wait(self, event):
        self.log.append(f"{self.name} waits for {event}")

    def synchronize(self):
        self.log.append(f"{self.name} ends")


def test_order_follows_the_wires():
    assert [link.graph.name for link in chain(DIAMOND).order] == ["root", "left", "right", "join"]


@pytest.mark.parametrize("streams", [0, 1, 2, 3])
def test_result_does_not_depend_on_the_streams(streams):
    made = chain(DIAMOND, [Recorder(str(i), []) for i in range(streams)], FakeBackend(ADDING)).run(IMAGE, ["d", "b"])
    assert np.array_equal(made.tensors["d"], [5, 5])
    assert np.array_equal(made.tensors["b"], [2, 2])


def test_independent_graphs_take_two_streams_and_meet_by_events():
    log: list[str] = []
    graphs = [graph("sam", "x", "s"), graph("clip", "y", "c"), graph("head", "s c", "m")]
    feed = {name: np.zeros(2, np.float32) for name in "xy"}
    chain(graphs, [Recorder("one", log), Recorder("two", log)]).run(feed, ["m"])
    assert log == ["two waits for one"]


def test_graphs_are_timed_where_they_run_in_order():
    log: list[str] = []
    names = ["root", "left", "right", "join"]
    assert list(chain(DIAMOND, [Recorder("one", log)]).run(IMAGE, ["d"]).timings_ms) == names
    assert log == ["one ends"] * 4
    several = chain(DIAMOND, [Recorder(str(i), []) for i in range(2)])
    assert several.run(IMAGE, ["d"]).timings_ms == {}
    assert list(several.profile(IMAGE, ["d"]).timings_ms) == names


@pytest.mark.parametrize("streams", [0, 2])
def test_tensor_is_dropped_after_its_last_reader(streams):
    import weakref

    alive = {}

    def make(name, *reads):
        def run(inputs):
            alive[name] = [key for key, ref in refs.items() if ref() is not None]
            value = np.ones(2, np.float32)
            refs[name] = weakref.ref(value)
            return {name: value}

        return run

    refs: dict = {}
    outputs = {"root": make("a"), "left": make("b"), "right": make("c"), "join": make("d"), "tail": make("e")}
    graphs = [*DIAMOND, graph("tail", "d", "e")]
    recorders = [Recorder(str(i), []) for i in range(streams)]
    result = chain(graphs, recorders, FakeBackend(outputs)).run(IMAGE, ["b", "e"])
    assert alive["d"] == ["b", "c"]  # a is gone once left and right have read it
    assert alive["e"] == ["b", "d"]  # b was asked for, c was not
    assert set(result.tensors) == {"b", "e"}


def test_circle_is_refused():
    with pytest.raises(BundleError, match="wait for each other: one, two"):
        chain([graph("one", "b", "a"), graph("two", "a", "b")])


def test_two_makers_of_one_tensor_are_refused():
    with pytest.raises(BundleError, match="one and two both give a"):
        chain([graph("one", "x", "a"), graph("two", "x", "a")])


def test_missing_input_and_unknown_output_are_named():
    with pytest.raises(BundleError, match=r"no graph gives \['image'\]"):
        chain(DIAMOND).run({}, ["d"])
    with pytest.raises(BundleError, match=r"no graph gives \['z'\]"):
        chain(DIAMOND).run(IMAGE, ["z"])


class Watcher:
    """An observer that writes down what it hears in a stream's log."""

    def __init__(self, log):
        self.log = log

    @contextmanager
    def step(self, name, stream):
        where = "" if stream is None else f" on {stream.name}"
        self.log.append(f"{name} begins{where}")
        yield
        self.log.append(f"{name} ends")


def test_observer_hears_of_every_step_in_order():
    log: list[str] = []
    chain(DIAMOND, [Recorder("one", log)], FakeBackend(ADDING)).run(IMAGE, ["d"], Watcher(log))
    steps = [line for line in log if "begins" in line]
    assert steps[0] == "upload begins"
    assert steps[1:-1] == [f"{name} begins on one" for name in ("root", "left", "right", "join")]
    assert steps[-1] == "download begins"
    # A graph's step is what its stream does: the host waits for it outside.
    assert log[2:5] == ["root begins on one", "root ends", "one ends"]


def test_observed_run_waits_for_its_streams_before_the_download_and_no_other_does():
    log: list[str] = []
    several = chain(DIAMOND, [Recorder("one", log), Recorder("two", log)], FakeBackend(ADDING))
    observed = several.run(IMAGE, ["d"], Watcher(log))
    assert log[-6:] == ["wait begins", "one ends", "two ends", "wait ends", "download begins", "download ends"]
    assert "root begins on one" in log
    log.clear()
    assert np.array_equal(several.run(IMAGE, ["d"]).tensors["d"], observed.tensors["d"])
    assert not [line for line in log if line.endswith(" ends")]
