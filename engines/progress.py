"""Progress of a build: a bar with an ETA over all graphs, moved on inside a graph where the SDK reports its steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Advance = Callable[[float], None]


class WorkBar:
    """A bar on stderr over named pieces of work of different weight; drawn only if `shown` and on a terminal.

    Args:
        weights: how much each piece counts for, by its label.
    """

    def __init__(self, title: str, weights: dict[str, float], shown: bool = True) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
        self._weights, self._done = weights, 0.0
        self._bar = Progress(
            *columns,
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not (shown and console.is_terminal),
        )
        self._task = self._bar.add_task(title, total=sum(weights.values()) or 1.0)

    def __enter__(self) -> WorkBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    @property
    def share(self) -> float:
        """How much of the whole is done, 0 to 1."""
        task = self._bar.tasks[0]
        return task.completed / (task.total or 1.0)

    @contextmanager
    def piece(self, label: str) -> Iterator[Advance]:
        """One piece of the work; yields a function that takes the share of it that is done, 0 to 1."""
        self._bar.update(self._task, description=label)
        weight = self._weights[label]
        yield lambda share: self._bar.update(self._task, completed=self._done + weight * share)
        self._done += weight
        self._bar.update(self._task, completed=self._done)


class Interrupt:
    """Says whether Ctrl-C was pressed inside `deferred_interrupt`."""

    asked = False


@contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Keeps a KeyboardInterrupt out of an SDK's callbacks, where it would end the process, and raises it at the end.

    The SDK is asked to stop through its progress monitor where it has one; TensorRT 8.6 has none and ends its graph.
    """
    interrupt = Interrupt()

    def note(_signal: int, _frame: FrameType | None) -> None:
        interrupt.asked = True

    if threading.current_thread() is not threading.main_thread():  # signals never arrive here
        yield interrupt
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
        if interrupt.asked:
            raise KeyboardInterrupt


class Phases:
    """The nested phases that a TensorRT builder reports, as one share of the whole, 0 to 1."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[str | None, int, int]] = {}  # name → parent, steps, steps done

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        self._open[phase] = (parent, max(steps, 1), 0)

    def step(self, phase: str, step: int) -> None:
        parent, steps, _ = self._open[phase]
        self._open[phase] = (parent, steps, min(step + 1, steps))

    def finish(self, phase: str) -> None:
        self._open.pop(phase, None)

    def share(self) -> float:
        """How much is done; phases that run beside each other count as one."""
        return max((self._share(name) for name, (parent, _, _) in self._open.items() if parent is None), default=0.0)

    def _share(self, phase: str) -> float:
        _, steps, done = self._open[phase]
        inner = max((self._share(name) for name, (parent, _, _) in self._open.items() if parent == phase), default=0.0)
        return min((done + inner) / steps, 1.0)


def monitor(trt: Any, advance: Advance, interrupt: Interrupt) -> Any:
    """A progress monitor for `IBuilderConfig.progress_monitor`, or None where this TensorRT (8.6) has none."""
    base: Any = getattr(trt, "IProgressMonitor", None)
    if base is None:
        return None
    phases = Phases()

    class Monitor(base):  # type: ignore[misc]  # the SDK's class is known only at run time
        def __init__(self) -> None:
            super().__init__()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            phases.step(phase_name, step)
            advance(phases.share())
            return not interrupt.asked

        def phase_finish(self, phase_name: str) -> None:
            phases.finish(phase_name)

    return Monitor()
