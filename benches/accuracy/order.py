"""Hands images out to workers, and gives their tallies in the data set's order whatever the order they end in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from .count import Tally

LEAD = 8
"""How many images per worker may be done before their turn; this, not the data set, bounds the memory."""


class Counter(Protocol):
    """A worker, which is busy with one image at a time.

    Attributes:
        position: of that image, in the list of those that are to be counted.
    """

    position: int

    def send(self, what: int) -> None: ...

    def receive(self) -> Tally: ...


SomeCounter = TypeVar("SomeCounter", bound=Counter)


def in_order(
    workers: Sequence[SomeCounter],
    indices: Sequence[int],
    answering: Callable[[list[SomeCounter]], Sequence[SomeCounter]],
) -> Iterator[Tally]:
    """The tallies of the images `indices`, in this order.

    Args:
        workers: all idle.
        indices: of images.
        answering: gives those of some busy workers that have an answer, or have died; waits for the first.

    Raises:
        EdgesegError: what a worker raises when it is sent an image or asked for its answer.
    """
    done: dict[int, Tally] = {}
    turn, sent = 0, 0
    idle = list(workers)
    while turn < len(indices):
        while idle and sent < min(len(indices), turn + LEAD * len(workers)):
            worker = idle.pop()
            worker.send(indices[sent])
            worker.position, sent = sent, sent + 1
        if turn not in done:
            for worker in answering([worker for worker in workers if worker not in idle]):
                done[worker.position] = worker.receive()
                idle.append(worker)
            continue
        yield done.pop(turn)
        turn += 1
