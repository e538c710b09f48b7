"""Counts images on the machines of a Ray cluster. This file is about Ray, and imported only when a cluster is named.

Every worker opens the engines and reads the images itself, under the same paths as here. Before the first image it says
what its results would depend on; if that is not what they depend on here, nothing is counted, so a matrix is the same
wherever its images were counted.
"""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from edgeseg.errors import EdgesegError, InputError

from .count import Tally
from .job import Crew, Job, Worker
from .order import in_order
from .state import belongs_to

CONNECT_S = 5.0
_HEAD = re.compile(r"([^\s:/]+):(\d{1,5})")
_SHOWN = 300  # characters of what Ray says

Tallies = Generator[Tally, None, None]
Given = TypeVar("Given")
Made = TypeVar("Made")


def on_cluster(job: Job, indices: Sequence[int], crew: Crew, belongs: Mapping[str, str]) -> Tallies:
    """The tallies of the images `indices`, in this order. Close the generator to end the workers.

    Args:
        job: its paths must hold on every machine.
        indices: of images.
        crew: names the cluster.
        belongs: what `belongs_to` says of the job here.

    Raises:
        InputError: nobody answers at the address, or a machine is not like this one.
        EdgesegError: what a worker raised, or a worker died.
    """
    if not indices:
        return
    with _connected(crew.ray or "auto") as ray:
        workers = [_Remote(ray, machine) for machine in _places(ray, crew)[: len(indices)]]
        for worker in workers:
            worker.open(_absolute(job), crew)
        for worker in workers:
            worker.check(belongs)
        yield from in_order(workers, indices, _answering)


class _Counter:
    """What runs on a machine of the cluster. It returns errors, since Ray would wrap what it raises."""

    def open(self, job: Job) -> dict[str, str] | EdgesegError:
        return _caught(self._open, job)

    def tally(self, index: int) -> Tally | EdgesegError:
        return _caught(self._worker.tally, index)

    def _open(self, job: Job) -> dict[str, str]:
        self._worker = Worker(job)
        return belongs_to(job, self._worker.segmenters)


class _Remote:
    """A worker, seen from here.

    Args:
        ray: the package.
        machine: one of `ray.nodes()`.

    Attributes:
        position: of the image it is busy with.
        answer: Ray's reference to what it was asked last.
        ray: as above.
    """

    def __init__(self, ray: Any, machine: Mapping[str, Any]) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(machine["NodeID"], soft=False)
        self.ray, self.position, self.answer = ray, -1, None
        self._name, self._cores = machine["NodeManagerHostname"], int(machine["Resources"]["CPU"])
        self._actor = ray.remote(_Counter).options(scheduling_strategy=there).remote()

    def open(self, job: Job, crew: Crew) -> None:
        threads = crew.threads or max(self._cores // crew.processes, 1)
        self.answer = self._actor.open.remote(replace(job, threads=threads))

    def check(self, belongs: Mapping[str, str]) -> None:
        found = self._received()
        apart = [key for key in belongs if found[key] != belongs[key]]
        if apart:
            words = "; ".join(f"{key} is {belongs[key]} here and {found[key]} there" for key in apart)
            todo = "use machines of one kind, with the same files and packages"
            raise InputError(f"count images on the machine {self._name}", words, todo)

    def send(self, what: int) -> None:
        self.answer = self._actor.tally.remote(what)

    def receive(self) -> Tally:
        found: Tally = self._received()
        return found

    def _received(self) -> Any:
        try:
            answer = self.ray.get(self.answer)
        except self.ray.exceptions.RayError as error:
            found = f"a worker on the machine {self._name} ended: {_last_line(error)}"
            raise EdgesegError("count the images", found, "see Ray's logs there; the same command goes on") from None
        if isinstance(answer, EdgesegError):
            raise answer
        return answer


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """The package ray, connected. Raises InputError."""
    asked = f"count on the Ray cluster {address}"
    todo = "give HOST:PORT of its head, as `ray start --head` prints it, or auto on one of its machines"
    if address != "auto":
        _knock(address, asked, todo)
    import ray

    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(asked, _last_line(error), todo) from None
    except SystemExit:  # what Ray does, after minutes, where something else than Ray answers
        raise InputError(asked, "what answers there is no Ray, or does not let this machine in", todo) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str, asked: str, todo: str) -> None:
    """Ray itself would wait for minutes where nobody answers."""
    found = _HEAD.fullmatch(address)
    if not found:
        raise InputError(asked, "it is no address of that form", todo)
    try:
        socket.create_connection((found[1], int(found[2])), CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise InputError(asked, f"nobody answers there ({error})", todo) from None


def _places(ray: Any, crew: Crew) -> list[Mapping[str, Any]]:
    """A machine for each worker, each machine once before one comes again. Raises InputError."""
    machines = [one for one in ray.nodes() if one["Alive"] and one["Resources"].get("CPU", 0) >= 1]
    if not machines:
        raise InputError("count on the Ray cluster", "none of its machines offers a CPU", "start one with `ray start`")
    return machines * crew.processes


def _absolute(job: Job) -> Job:
    """The job with paths that do not depend on the folder in which a process runs."""
    items = tuple(
        replace(item, image=item.image.absolute(), labels=item.labels and item.labels.absolute())
        for item in job.dataset.items
    )
    sides = tuple(replace(side, bundle=side.bundle.absolute()) for side in job.sides)
    return replace(job, dataset=replace(job.dataset, items=items), sides=sides)


def _answering(busy: Sequence[_Remote]) -> list[_Remote]:
    """Those that have an answer, or have died; waits for the first."""
    answers = {worker.answer: worker for worker in busy}
    return [answers[answer] for answer in busy[0].ray.wait(list(answers))[0]]


def _caught(function: Callable[[Given], Made], value: Given) -> Made | EdgesegError:
    try:
        return function(value)
    except EdgesegError as error:
        return error


def _last_line(error: Exception) -> str:
    """What Ray says comes with a traceback, of which the end is what was the matter."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip()[:_SHOWN] if lines else type(error).__name__
