"""A Ray cluster counts what one process counts. Two nodes of one core each stand in for it, both on this machine."""

import json
import os
import signal
import socket
import sys
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from edgeseg.benches.accuracy import Options, State, cluster, evaluate
from edgeseg.benches.accuracy.job import Crew, Job, side
from edgeseg.benches.accuracy.state import belongs_to
from edgeseg.benches.datasets import open_dataset
from edgeseg.cli import main
from edgeseg.errors import BundleError, EdgesegError, InputError
from tests.benches.conftest import make_folder
from tests.benches.runs import half_done

pytestmark = pytest.mark.onnx


@pytest.fixture(scope="module")
def address():
    """A cluster's, of two machines."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    machines.add_node(num_cpus=1)
    yield machines.address
    machines.shutdown()


@pytest.fixture
def job(segmenter, dataset):
    return Job(dataset, (side(segmenter, segmenter.vocabulary(dataset.prompts)),), Options(), 1)


def counted(job, segmenter, address, **changes):
    """The tallies of all images; `changes` are of what must be alike on all machines."""
    belongs = belongs_to(job, [segmenter]) | changes
    with closing(cluster.on_cluster(job, range(len(job.dataset)), Crew(1, 1, address), belongs)) as tallies:
        return list(tallies)


@pytest.mark.ray
@pytest.mark.slow
def test_cluster_counts_the_same_to_the_bit(segmenter, dataset, address):
    steps = []
    alone = evaluate(segmenter, dataset, per_image=True)
    shared = evaluate(segmenter, dataset, ray=address, per_image=True, progress=lambda *step: steps.append(step))
    assert shared.confusion.dtype == np.int64
    assert np.array_equal(alone.confusion, shared.confusion)
    assert alone.count.worst == shared.count.worst
    assert all(np.array_equal(*pair) for pair in zip(alone.count.images, shared.count.images, strict=True))
    assert steps == [(done, len(dataset)) for done in range(len(dataset) + 1)]


@pytest.mark.ray
@pytest.mark.slow
def test_every_machine_counts(job, segmenter, address, monkeypatch):
    class Signed(cluster._Counter):  # type: ignore[misc]
        def tally(self, index):
            return replace(super().tally(index), key=str(os.getpid()))

    monkeypatch.setattr(cluster, "_Counter", Signed)
    assert len({tally.key for tally in counted(job, segmenter, address)} - {str(os.getpid())}) == 2


@pytest.mark.ray
@pytest.mark.slow
def test_command_counts_on_a_cluster_what_was_begun_alone(
    tiny_path, folder, segmenter, dataset, address, tmp_path, monkeypatch, capsys
):
    state = half_done(segmenter, dataset, tmp_path / "run.state")
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.chdir(folder.parent)
    words = ["--dataset", "folder", "--root", folder.name, "--backend", "onnxruntime", "--state", str(state.path)]
    assert main(["bench", "accuracy", str(tiny_path), *words, "--ray", "auto", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["resumed_images"] == 2
    assert body["confusion"] == evaluate(segmenter, dataset).confusion.tolist()


@pytest.mark.ray
@pytest.mark.slow
def test_worker_that_dies_is_reported_and_what_was_counted_is_kept(segmenter, dataset, address, tmp_path, monkeypatch):
    class Mortal(cluster._Counter):  # type: ignore[misc]
        def tally(self, index):
            if index == 4:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().tally(index)

    state = State(tmp_path / "run.state", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "_Counter", Mortal)
        with pytest.raises(EdgesegError, match=r"a worker on the machine \S+ ended: .*; see Ray's logs there"):
            evaluate(segmenter, dataset, ray=address, state=state)
    resumed = evaluate(segmenter, dataset, ray=address, state=state)
    assert 1 <= resumed.resumed <= 4
    assert np.array_equal(resumed.confusion, evaluate(segmenter, dataset).confusion)


@pytest.mark.ray
@pytest.mark.slow
def test_machine_that_is_not_like_this_one_is_refused(job, segmenter, address):
    with pytest.raises(InputError, match=r"packages is numpy 1\.0 here and numpy .* there; use machines of one kind"):
        counted(job, segmenter, address, packages="numpy 1.0")


@pytest.mark.ray
@pytest.mark.slow
def test_errors_of_workers_are_passed_on(job, segmenter, address, tmp_path):
    lost = replace(job, sides=(replace(job.sides[0], bundle=tmp_path / "gone.bundle"),))
    with pytest.raises(BundleError, match=r"gone\.bundle: there is no such directory"):
        counted(lost, segmenter, address)
    few = open_dataset("folder", make_folder(tmp_path / "few", [(48, 64)] * 3))
    few.items[2].image.unlink()
    with pytest.raises(InputError, match=r"images/2\.png"):
        counted(replace(job, dataset=few), segmenter, address)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("somewhere", "it is no address of that form"),
        ("ray://127.0.0.1:10001", "it is no address of that form"),
        ("127.0.0.1:1", "nobody answers there"),
        ("127.0.0.1:99999", "nobody answers there"),
        ("no-such-host.invalid:6379", "nobody answers there"),
    ],
)
def test_wrong_address_is_an_error_that_says_what_to_give(tiny_path, folder, capsys, given, found):
    words = ["--dataset", "folder", "--root", str(folder), "--backend", "onnxruntime", "--ray", given]
    assert main(["bench", "accuracy", str(tiny_path), *words]) == InputError.exit_code
    error = capsys.readouterr().err
    assert f"edgeseg: cannot count on the Ray cluster {given}: {found}" in error
    assert "; give HOST:PORT of its head" in error


def test_without_ray_the_line_that_installs_it_is_given(tiny_path, folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        words = ["--dataset", "folder", "--root", str(folder), "--backend", "onnxruntime", "--ray", address]
        assert main(["bench", "accuracy", str(tiny_path), *words]) == EdgesegError.exit_code
    assert 'ray is not installed; pip install "edgeseg[ray]"' in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.parametrize(
    ("raised", "found"),
    [(SystemExit(15), "what answers there is no Ray"), (ConnectionError("a\ntrace\nit is down"), "it is down")],
)
def test_what_is_no_cluster_is_an_error_and_not_the_end_of_the_process(monkeypatch, raised, found):
    import ray

    def init(*_, **__):
        raise raised

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(InputError, match=f"cannot count on the Ray cluster auto: {found}"), cluster._connected("auto"):
        pass
