"""What may be chosen for PnP-OVSS at each image; the defaults are the released code's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from edgeseg.errors import InputError

FILTERS = ("match", "none")
BACKGROUNDS = ("always", "few", "never")
LAST = ("sum", "mean")


@dataclass(frozen=True)
class Settings:
    """Settings of one image.

    Attributes:
        rounds: of salience dropout. `weights`: of each round's maps in their sum. `patches`: left out after each.
        filter: "match" leaves out classes that BLIP's own match score rejects; "none" takes all.
        match: least probability of "match" of a class that is kept; the best one is kept in any case.
        only: the classes of this image, in place of the filter; None leaves it to the filter.
        tokens: most tokens of a caption; more classes than fit go into further captions. 0: what the graphs take.
        last: the released code divides a class's map by its number of word pieces, but for the caption's last class:
            "sum" does as it does, "mean" divides every class's. With several captions it is always "mean".
        cells: cells of a class's map below this share of its range are zero.
        background: where every map is zero a pixel belongs to none of the classes: "always" (VOC, COCO-Object), "few",
            with fewer than three classes (Pascal Context, ADE20K, COCO-Stuff), or "never".
        blur: deviation of the Gaussian blur as a share of the image's longer side; 0 for none.
        crf: refine the scores with a dense conditional random field at full size.
        early_stop: stop when this share of the cells has the label that it had a round before; 0 never stops.
    """

    rounds: int = 4
    weights: tuple[float, ...] = (2.0, 1.0, 1.0, 1.0)
    patches: int = 10
    filter: str = "match"
    match: float = 0.5
    only: tuple[str, ...] | None = None
    tokens: int = 0
    last: str = "sum"
    cells: float = 0.15
    background: str = "always"
    blur: float = 0.05
    crf: bool = False
    early_stop: float = 0.0


_LIMITS: dict[str, tuple[float, float]] = {
    "rounds": (1, 100),
    "patches": (0, 1 << 20),
    "match": (0, 1),
    "tokens": (0, 1 << 20),
    "cells": (0, 1),
    "blur": (0, 1),
    "early_stop": (0, 1),
}
_CHOICES = {"filter": FILTERS, "background": BACKGROUNDS, "last": LAST}


def settings(given: Mapping[str, Any]) -> Settings:
    """Settings by name; texts, as a command line gives them, are read as what the setting holds.

    Raises:
        InputError: there is no such setting, or its value cannot be.
    """
    known = {field.name for field in fields(Settings)}
    unknown = [name for name in given if name not in known]
    if unknown:
        raise InputError(
            f"set {unknown[0]!r}", "PnP-OVSS has no such setting", f"choose from {', '.join(sorted(known))}"
        )
    made = Settings(**{name: _value(name, value) for name, value in given.items()})
    if len(made.weights) < made.rounds:
        found = f"there are {len(made.weights)} weights"
        raise InputError(f"run {made.rounds} rounds", found, "set a weight for each, as weights=2,1,1,1")
    return made


def _value(name: str, value: Any) -> Any:
    try:
        made = _READERS[name](value)
    except (TypeError, ValueError) as error:
        raise _refused(name, value, str(error)) from None
    low, high = _LIMITS.get(name, (-math.inf, math.inf))
    if name in _LIMITS and not low <= made <= high:
        raise _refused(name, value, f"it must be {low:g} to {high:g}")
    if name in _CHOICES and made not in _CHOICES[name]:
        raise _refused(name, value, f"it is one of {', '.join(_CHOICES[name])}")
    return made


def _refused(name: str, value: Any, found: str) -> InputError:
    return InputError(f"set {name} to {str(value)[:80]!r}", found, "see docs/pnp-ovss.md")


def _numbers(value: Any) -> tuple[float, ...]:
    parts: Iterable[Any] = value.split(",") if isinstance(value, str) else value
    made = tuple(float(part) for part in parts)
    if not made or any(not (math.isfinite(number) and number >= 0) for number in made):
        raise ValueError("the weights are finite numbers, 0 or larger")
    return made


def _names(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else tuple(map(str, value))


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() not in ("true", "false", "yes", "no"):
        raise ValueError("it is yes or no")
    return str(value).lower() in ("true", "yes")


def _whole(value: Any) -> int:
    if isinstance(value, float):
        raise ValueError("it is a whole number")
    return int(value)


_READERS: dict[str, Callable[[Any], Any]] = {
    "rounds": _whole,
    "weights": _numbers,
    "patches": _whole,
    "filter": str,
    "match": float,
    "only": _names,
    "tokens": _whole,
    "last": str,
    "cells": float,
    "background": str,
    "blur": float,
    "crf": _flag,
    "early_stop": float,
}
