"""The process of one side: opens it, runs it once uncounted, then once for each line "run" on stdin, until "end".

    python -m benches.peers.worker '{"opens": "module:function", "work": "...", "options": {}}'
    python -m benches.peers.worker '{"makes": "module:function", "work": "..."}'

Each answer is one JSON object on a line of stdout; whatever libraries print goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from edgeseg.environment import core_count, versions_of

from ..machine.cpu import CpuUse, cpu_time, cpu_use
from ..machine.memory import HostMemory
from .side import AbsentError, Run, load

WARM_UP = "the end of the uncounted run"


def main(words: list[str]) -> None:
    """Serve one side, or make one file."""
    task, answers = json.loads(words[0]), own_stdout()
    try:
        if "makes" in task:
            load(task["makes"])(Path(task["work"]))
            _say(answers, {})
        else:
            serve(task, sys.stdin, answers)
    except AbsentError as reason:
        _say(answers, {"absent": str(reason)})


def serve(task: dict[str, Any], requests: TextIO, answers: TextIO) -> None:
    """Answer once when open and warm, then every request.

    Args:
        task: `opens`, `work`, and of its side `options`, `packages`, `repeats`; and `output`, where the last result
            goes as .npy.
        requests: lines.
        answers: where the JSON goes.
    """
    memory, start = HostMemory(), time.perf_counter()
    run: Run = load(task["opens"])(Path(task["work"]), **task["options"])
    open_s = time.perf_counter() - start
    first_s, result = _timed(run)
    peak = memory.peak_bytes()
    memory.reset(WARM_UP)
    _say(answers, {"open_s": open_s, "first_s": first_s})
    for _ in _asked(requests):
        before = cpu_time()
        seconds, result = _timed(run, task["repeats"])
        _say(answers, {"seconds": seconds, "others_percent": others_percent(cpu_use(before, cpu_time()))})
    running = memory.peak_bytes() if memory.since == WARM_UP else None
    np.save(task["output"], result)
    whole = max((size for size in (peak, running) if size is not None), default=None)
    _say(answers, {"peak_bytes": whole, "running_peak_bytes": running, "versions": versions_of(task["packages"])})


def others_percent(use: CpuUse) -> float | None:
    """How much of the processors other programs, or a hypervisor, had meanwhile; None where the kernel does not say."""
    if use.others is None or use.stolen is None:
        return None
    return 100 * (use.others + use.stolen) / core_count()


def own_stdout() -> TextIO:
    """The stdout that the parent reads, under another number; number 1 becomes stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _timed(run: Run, repeats: int = 1) -> tuple[float, Any]:
    """Mean seconds of so many runs, and what the last one gave."""
    start = time.perf_counter()
    for _ in range(repeats):
        result = run()
    return (time.perf_counter() - start) / repeats, result


def _asked(requests: TextIO) -> Iterator[str]:
    """The requests before "end" or the parent's own end."""
    for line in requests:
        if line.strip() == "end":
            return
        yield line


def _say(answers: TextIO, body: dict[str, Any]) -> None:
    answers.write(json.dumps(body) + "\n")
    answers.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
