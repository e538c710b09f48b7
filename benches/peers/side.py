"""What is put side by side: a comparison has sides, each of which opens and runs in a process of its own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[2]

Array = npt.NDArray[Any]
Run = Callable[[], Array]


class AbsentError(Exception):
    """A side cannot be had on this machine; the text says why. The others are measured all the same."""


@dataclass(frozen=True)
class Side:
    """One way to do a comparison's task.

    Attributes:
        name: "sam/torch"; the part before the slash is its comparison's.
        title: what a reader calls it.
        opens: "module:function", called with the work folder and `options`; gives a `Run`. Raises AbsentError.
        included: what one run holds where it differs from the comparison's `included`, and what it runs on.
        needs: "module:function" of each file in the work folder that it reads, called with that folder; idempotent.
        packages: distributions whose versions belong to the figure.
        options: JSON values.
        ours: this project's.
        repeats: how often a turn runs it; its seconds are the mean. For what is over in milliseconds.
    """

    name: str
    title: str
    opens: str
    included: str
    needs: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    ours: bool = False
    repeats: int = 1


@dataclass(frozen=True)
class Comparison:
    """Sides that do the same on the same input.

    Attributes:
        name: what `--only` takes.
        title: input and task, in words.
        included: what one run of every side holds.
        sides: in the order in which they take turns. All are held against the first, which is this project's.
    """

    name: str
    title: str
    included: str
    sides: tuple[Side, ...]


def load(target: str) -> Callable[..., Any]:
    """The function that "module:function" names."""
    module, _, name = target.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function
