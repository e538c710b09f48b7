"""Readings, the sources they come from, and a thread that takes them while something else runs."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

PERIOD_S = 0.2
"""Time between two readings of a `Watch`; one takes well under a millisecond, so it does not disturb what is timed."""


@dataclass(frozen=True)
class Reading:
    """One value.

    Attributes:
        kind: what and in which unit: "clock_mhz", "temperature_c", "power_w", "utilization_percent".
        of: whose, in the platform's words ("cpu", "gpu", "VDD_IN").
    """

    kind: str
    of: str
    value: float


class Source(Protocol):
    """Something that can be read at any time, from any thread, and never raises."""

    def readings(self) -> Iterable[Reading]:
        """What it says now."""
        ...

    def throttles(self) -> Iterable[str]:
        """What holds a clock down now because of heat or a broken limit, each in a few words."""
        ...


@dataclass(frozen=True)
class Range:
    """All readings of one kind and place."""

    kind: str
    of: str
    least: float
    mean: float
    most: float


class Watch:
    """Reads its sources in a thread of its own while it is entered.

    Attributes:
        throttles: everything that was reported by `Source.throttles`.
    """

    def __init__(self, sources: Sequence[Source], period_s: float = PERIOD_S) -> None:
        self.throttles: set[str] = set()
        self._sources, self._period_s = sources, period_s
        self._values: dict[tuple[str, str], list[float]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="edgeseg-watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if not self._values:  # it was over before the first period
            self._take()

    def ranges(self) -> tuple[Range, ...]:
        """What was read, by kind and place."""
        return tuple(
            Range(kind, of, min(values), sum(values) / len(values), max(values))
            for (kind, of), values in sorted(self._values.items())
        )

    def _loop(self) -> None:
        while not self._stop.wait(self._period_s):
            self._take()

    def _take(self) -> None:
        for source in self._sources:
            for reading in source.readings():
                self._values.setdefault((reading.kind, reading.of), []).append(reading.value)
            self.throttles.update(source.throttles())


def text(path: Path) -> str | None:
    """A small file's text without surrounding blanks; None if it cannot be read: sensors that sleep give an error."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n\t")
    except OSError:
        return None


def number(path: Path) -> float | None:
    """A file's number; None if there is none."""
    try:
        return float(text(path) or "")
    except ValueError:
        return None
