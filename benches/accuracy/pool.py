"""Counts images in several processes.

Each process opens the engines once and takes the next image when it is done with one. It ends when its pipe does, so
none is left behind by a parent that was killed; Ctrl-C is the parent's alone to answer.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing import connection, get_context
from typing import Any

from edgeseg.errors import EdgesegError

from .count import Tally
from .job import Job, Worker
from .order import in_order


def in_processes(job: Job, indices: Sequence[int], processes: int) -> Generator[Tally, None, None]:
    """The tallies of the images `indices`, in this order. Close the generator to end the processes.

    Raises:
        EdgesegError: what a worker raised, or a worker died.
    """
    with ExitStack() as ends:
        workers = _start(min(processes, len(indices)), ends)
        for worker in workers:
            worker.send(job)
        yield from in_order(workers, indices, _answering)


class _Process:
    """One worker. What it is sent first is the job; after that, images to count.

    Attributes:
        pipe: its end here.
        position: of the image it is busy with.
    """

    def __init__(self) -> None:
        context = get_context("spawn")  # a fork would copy threads and CUDA contexts that do not survive it
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self.position = -1

    def send(self, what: Job | int) -> None:
        try:
            self.pipe.send(what)
        except OSError:
            raise self._died() from None

    def receive(self) -> Tally:
        try:
            answer: Any = self.pipe.recv()
        except (EOFError, OSError):
            raise self._died() from None
        if isinstance(answer, EdgesegError):
            raise answer
        found: Tally = answer
        return found

    def end(self) -> None:
        self.pipe.close()
        self._process.terminate()
        self._process.join()

    def _died(self) -> EdgesegError:
        """Why it cannot be talked to: the error that it left in the pipe, or else its exit code."""
        try:
            last: Any = self.pipe.recv() if self.pipe.poll() else None
        except (EOFError, OSError):
            last = None
        if isinstance(last, EdgesegError):
            return last
        self._process.join()
        found = f"a worker process ended with code {self._process.exitcode}"
        return EdgesegError("count the images", found, "see the lines above; if memory ran out, use fewer --processes")


def _start(count: int, ends: ExitStack) -> list[_Process]:
    started = []
    with _without_interrupts():
        for _ in range(count):
            started.append(_Process())
            ends.callback(started[-1].end)
    return started


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A process inherits that Ctrl-C is ignored; without it, one that is still starting would die of it, loudly."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler or signal.SIG_DFL)


def _answering(busy: Sequence[_Process]) -> list[_Process]:
    """Those that have an answer, or have died; waits for the first."""
    pipes = {worker.pipe: worker for worker in busy}
    return [pipes[pipe] for pipe in connection.wait(list(pipes)) if isinstance(pipe, connection.Connection)]


def _work(pipe: connection.Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Worker(pipe.recv()) as worker:
            while True:
                pipe.send(worker.tally(pipe.recv()))
    except (EOFError, ConnectionError):
        return
    except EdgesegError as error:
        pipe.send(error)
