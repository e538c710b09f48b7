"""What a verb shows: a progress bar on stderr, and its result as JSON on stdout."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edgeseg.environment import envelope

Report = Callable[[int, int], None]


def print_json(command: str, **body: Any) -> None:
    """The envelope of a verb's result on stdout, on one line."""
    click.echo(json.dumps(envelope(command, **body), allow_nan=False))


@contextmanager
def progress_bar(title: str, *, shown: bool = True, bytes_: bool = False) -> Iterator[Report]:
    """Yields a function of (done, total) that draws a bar with the remaining time, if `shown` and stderr is a terminal.

    Args:
        title: what is being done.
        shown: False with `--json`.
        bytes_: the numbers are bytes.
    """
    console = Console(stderr=True)
    count = DownloadColumn(binary_units=True) if bytes_ else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (shown and console.is_terminal), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def size_words(size_bytes: int) -> str:
    """`734003200` as "700.0 MiB"."""
    amount, unit = float(size_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{size_bytes} B" if unit == "B" else f"{amount:.1f} {unit}"
