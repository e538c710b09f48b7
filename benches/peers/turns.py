"""Runs the sides of a comparison in turn: A B C, A B C, ... Each is a process that stays open between its turns.

All are opened and warmed up one after the other before the first counted run, so that nothing is compiled, loaded or
cached while another side is timed. A process that waits for its turn reads a pipe and takes no processor time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from .side import ROOT, AbsentError, Side

Watch = Callable[[str], None]
GRACE_S = 10.0  # to end by itself, once its stdin is closed
LEAST_FREE_BYTES = 5 << 30  # the hungriest side here takes 4 GiB, and those that wait keep what they have
_MEMINFO = Path("/proc/meminfo")


class FailedError(Exception):
    """A side's process ended without an answer; the text is the last line that it wrote to stderr."""


@dataclass
class Turns:
    """What was measured.

    Attributes:
        runs: side → its counted runs, one a round: `seconds`, `others_percent`.
        opened: side → `open_s` and `first_s`.
        ended: side → `peak_bytes`, `running_peak_bytes`, `versions`.
        absent, failed: side → the reason.
    """

    runs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    opened: dict[str, dict[str, float]] = field(default_factory=dict)
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def seconds(self, side: str) -> list[float]:
        """What its runs took."""
        return [run["seconds"] for run in self.runs[side]]


class Worker:
    """A process of `worker.py`. A context manager; leaving it ends the process.

    Args:
        work: the work folder, where its log goes.
        name: of the log.
        task: what it is to do.
    """

    def __init__(self, work: Path, name: str, task: dict[str, Any]) -> None:
        self._log = work / "log" / f"{name.replace('/', '-')}.txt"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "benches.peers.worker", json.dumps({**task, "work": str(work)})]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._process.communicate(timeout=GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def ask(self, word: str) -> dict[str, Any]:
        """Send a request and wait for its answer. Raises FailedError."""
        try:
            print(word, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise FailedError(self._end()) from None
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next answer. Raises FailedError, or AbsentError if that is the answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise FailedError(self._end())
        body: dict[str, Any] = json.loads(line)
        if "absent" in body:
            raise AbsentError(body["absent"])
        return body

    def _end(self) -> str:
        return last_words(self._log, self._process.wait())


def take_turns(work: Path, sides: Sequence[Side], rounds: int, watch: Watch) -> Turns:
    """Measure the sides.

    Args:
        work: the work folder; results go to `output/` in it.
        sides: a side whose needs cannot be made, or which fails, is left out from then on.
        rounds: counted runs of each.
        watch: told what happens.
    """
    turns, workers = Turns(), {}
    noted = partial(_noted, turns, work)
    with ExitStack() as stack:
        for side in sides:
            watch(f"{side.name}: opening, and a first run")
            with noted(side):
                worker = stack.enter_context(_started(work, side, watch))
                turns.opened[side.name] = worker.answer()
                workers[side.name], turns.runs[side.name] = worker, []
        for number in range(rounds):
            for side in [side for side in sides if side.name in turns.runs]:
                watch(f"{side.name}: run {number + 1} of {rounds}")
                with noted(side):
                    turns.runs[side.name].append(workers[side.name].ask("run"))
        for side in [side for side in sides if side.name in turns.runs]:
            with noted(side):
                turns.ended[side.name] = workers[side.name].ask("end")
    return turns


def last_words(log: Path, code: int) -> str:
    """The last line that a process wrote into its log before it ended with this code."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"it ended with code {code} and said nothing"


def output_file(work: Path, side: str) -> Path:
    """Where the last result of a side lies."""
    return work / "output" / f"{side.replace('/', '-')}.npy"


def free_bytes(meminfo: Path = _MEMINFO) -> int:
    """Memory that programs can still have without any being swapped out or killed."""
    lines = meminfo.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) * 1024


def _started(work: Path, side: Side, watch: Watch) -> Worker:
    """The side's process; before that, the files that it needs."""
    for target in side.needs:
        watch(f"{side.name}: needs {target.rpartition(':')[2]}")
        with Worker(work, target.rpartition(":")[2], {"makes": target}) as maker:
            maker.answer()
    free = free_bytes()
    if free < LEAST_FREE_BYTES:
        raise AbsentError(f"{free / 2**30:.1f} GiB of memory are free beside the open sides; name fewer with --only")
    output = output_file(work, side.name)
    output.parent.mkdir(parents=True, exist_ok=True)
    told = {"options": dict(side.options), "packages": side.packages, "repeats": side.repeats}
    return Worker(work, side.name, {"opens": side.opens, "output": str(output), **told})


@contextmanager
def _noted(turns: Turns, work: Path, side: Side) -> Iterator[None]:
    """A side that cannot do a step is left out from then on, and the reason kept, without this machine's paths."""
    try:
        yield
    except (AbsentError, FailedError) as reason:
        reasons = turns.absent if isinstance(reason, AbsentError) else turns.failed
        reasons[side.name] = str(reason).replace(str(work), "WORK")
        turns.runs.pop(side.name, None)
