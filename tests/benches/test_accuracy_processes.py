"""Several processes count what one counts, die with their parent, and leave Ctrl-C to it."""

import multiprocessing
import os
import random
import signal
import time
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edgeseg
from edgeseg.backends.fake import FakeBackend
from edgeseg.benches.accuracy import Options, State, evaluate, order, pool
from edgeseg.benches.accuracy.job import Job, side
from edgeseg.benches.datasets import open_dataset
from edgeseg.errors import BundleError, EdgesegError, InputError
from tests.benches.conftest import SIZES, make_folder
from tests.benches.runs import children, gone, start, unit_vocabulary

pytestmark = pytest.mark.onnx


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A folder with more images than a run gets through while it is being stopped."""
    return make_folder(tmp_path_factory.mktemp("long"), SIZES * 12)


def test_several_processes_count_the_same(segmenter, dataset):
    steps = []
    alone = evaluate(segmenter, dataset)
    shared = evaluate(segmenter, dataset, processes=2, progress=lambda done, total: steps.append((done, total)))
    assert np.array_equal(alone.confusion, shared.confusion)
    assert alone.count.worst == shared.count.worst
    assert steps == [(done, len(dataset)) for done in range(len(dataset) + 1)]


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_killed_run_goes_on_and_leaves_no_process_behind(segmenter, tiny_path, long, tmp_path, processes):
    dataset = open_dataset("folder", long)
    process = start(tmp_path, tiny_path, long, processes)
    assert process.stdout
    for line in process.stdout:
        if int(line) == 4:
            break
    workers = children(process.pid)
    process.kill()
    _, errors = process.communicate()
    assert errors == ""
    assert gone(workers)
    assert len(workers) >= (processes if processes > 1 else 0)
    resumed = evaluate(segmenter, dataset, state=State(tmp_path / "run.state"))
    assert 3 <= resumed.resumed < len(dataset)
    assert np.array_equal(resumed.confusion, evaluate(segmenter, dataset).confusion)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_run_killed_again_and_again_counts_as_one_that_was_not(segmenter, tiny_path, tmp_path, processes):
    """Wherever the kills fall: between two images, in the middle of one, while the state is written."""
    folder, rng, begun = make_folder(tmp_path / "many", SIZES * 24), random.Random(processes), []
    for _ in range(6):
        process = start(tmp_path, tiny_path, folder, processes)
        assert process.stdout
        begun.append(int(process.stdout.readline()))
        last = begun[-1] + rng.randint(1, 6)
        assert any(int(line) >= last for line in process.stdout)
        time.sleep(rng.uniform(0, 0.02))
        process.kill()
        process.communicate()
    many = open_dataset("folder", folder)
    resumed = evaluate(segmenter, many, state=State(tmp_path / "run.state"))
    assert begun == sorted(begun)
    assert 0 == begun[0] < begun[-1] <= resumed.resumed < len(many)
    assert np.array_equal(resumed.confusion, evaluate(segmenter, many).confusion)


def test_ctrl_c_is_the_parents_alone(tmp_path, tiny_path, long):
    process = start(tmp_path, tiny_path, long, 2)
    assert process.stdout
    for line in process.stdout:
        if int(line) == 2:
            break
    workers = children(process.pid)
    for pid in (*workers, process.pid):
        os.kill(pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert errors.splitlines().count("KeyboardInterrupt") == 1, errors
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert gone(workers)
    assert (tmp_path / "run.state").exists()


def test_worker_ignores_ctrl_c_however_it_was_started(segmenter, dataset, monkeypatch):
    monkeypatch.setattr(pool, "_without_interrupts", nullcontext)
    job = Job(dataset, (side(segmenter, segmenter.vocabulary(dataset.prompts)),), Options(), 1)
    with closing(pool.in_processes(job, range(len(dataset)), 1)) as tallies:
        first = next(tallies)
        for worker in multiprocessing.active_children():
            assert worker.pid
            os.kill(worker.pid, signal.SIGINT)
        assert [first.key, *(tally.key for tally in tallies)] == [item.key for item in dataset.items]
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("ended", [False, True])
def test_error_of_a_worker_that_cannot_open_its_engines_is_passed_on(segmenter, dataset, monkeypatch, tmp_path, ended):
    mine = side(segmenter, segmenter.vocabulary(dataset.prompts))
    job = Job(dataset, (replace(mine, bundle=tmp_path / "gone.bundle"),), Options(), 1)
    sent = pool._Process.send

    def send(self, what):
        if ended and isinstance(what, int):
            self._process.join()
        sent(self, what)

    monkeypatch.setattr(pool._Process, "send", send)
    with pytest.raises(BundleError, match=r"gone\.bundle: there is no such directory"):
        next(pool.in_processes(job, range(2), 1))


def test_worker_that_dies_is_reported(segmenter, dataset, monkeypatch):
    received = pool._Process.receive

    def kill_first(self):
        self._process.kill()
        self._process.join()
        return received(self)

    monkeypatch.setattr(pool._Process, "receive", kill_first)
    with pytest.raises(EdgesegError, match=r"a worker process ended with code -9"):
        evaluate(segmenter, dataset, processes=2)


def test_memory_of_results_that_wait_for_their_turn_is_bounded():
    sent: list[int] = []

    class Slow:
        """The worker that has the first image never answers."""

        def __init__(self, name):
            self.pipe, self.name, self.position = name, name, -1

        def send(self, index):
            sent.append(index)

        def receive(self):
            return self.position

    workers = [Slow("slow"), Slow("quick")]
    answers = iter(range(1000))

    def answering(busy):
        quick = [worker for worker in busy if worker.position != 0]
        if next(answers) > 100 or not quick:
            raise TimeoutError
        return quick

    with pytest.raises(TimeoutError):
        list(order.in_order(workers, range(1000), answering))
    assert len(sent) == order.LEAD * len(workers)


class OwnBackend(FakeBackend):
    """A class that `fake` does not name."""


@pytest.mark.parametrize("backend", [OwnBackend(), FakeBackend(outputs={"score": lambda inputs: {}})])
def test_own_backend_object_cannot_go_to_another_process(fake_bundle, dataset, backend):
    with (
        edgeseg.open(fake_bundle.path, backend=backend) as opened,
        pytest.raises(InputError, match="'fake' is an object of your own"),
    ):
        evaluate(opened, dataset, unit_vocabulary(3), processes=2)
