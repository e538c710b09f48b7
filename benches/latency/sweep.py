"""Reads `--sweep classes=1,10,150` and `--sweep batch=1,2`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeseg.errors import InputError

_AXES = ("classes", "batch")


@dataclass(frozen=True)
class Sweeps:
    """Numbers to measure with, in the order given; empty: no sweep of that kind."""

    classes: tuple[int, ...] = ()
    batches: tuple[int, ...] = ()


def parse_sweeps(texts: Sequence[str]) -> Sweeps:
    """The values of all `--sweep`. Raises InputError."""
    found: dict[str, tuple[int, ...]] = {}
    for text in texts:
        axis, _, numbers = text.partition("=")
        if axis not in _AXES or axis in found:
            problem = "it is given twice" if axis in found else f"{axis!r} is neither of {' and '.join(_AXES)}"
            raise _refuse(text, problem)
        found[axis] = tuple(_number(text, part) for part in numbers.split(","))
    return Sweeps(found.get("classes", ()), found.get("batch", ()))


def _number(text: str, part: str) -> int:
    if not part.strip().isdecimal() or int(part) < 1:
        raise _refuse(text, f"{part!r} is no number from 1")
    return int(part)


def _refuse(text: str, found: str) -> InputError:
    return InputError(f"use --sweep {text}", found, "write it like classes=1,10,150 or batch=1,2")
