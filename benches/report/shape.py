"""Checks that a JSON value has the form that is needed of it, so that what reads it need not.

A form is written as the value would look: `float` (any finite number), `int`, `str`, `bool`, `[form]`, `[form, ...]`
(at least one), `{"key": form}` (other keys may be there too), `{str: form}` (any names), `(form, None)` (may be null).
"""

from __future__ import annotations

import math
from typing import Any

LARGEST = 1e18
"""Numbers beyond it are no measurements."""


def misfit(value: Any, form: Any, where: str = "it") -> str | None:
    """The first thing that is wrong with a value, in words that follow "found"; None if it has the form."""
    if isinstance(form, tuple):
        return None if value is None else misfit(value, form[0], where)
    if isinstance(form, type):
        return None if _is(value, form) else f"{where} is no {_WORDS[form]}"
    kind = type(form)
    if not isinstance(value, kind):
        return f"{where} is no {_WORDS[kind]}"
    if kind is list and len(form) > 1 and not value:
        return f"{where} is empty"
    if kind is list:
        parts = [(item, form[0], f"{where}[{index}]") for index, item in enumerate(value)]
    elif str in form:
        parts = [(item, form[str], f"{where}.{name}") for name, item in value.items()]
    else:
        missing = [name for name in form if name not in value]
        if missing:
            return f"{where} has no {missing[0]!r}"
        parts = [(value[name], wanted, name if where == "it" else f"{where}.{name}") for name, wanted in form.items()]
    return next((found for part in parts if (found := misfit(*part))), None)


_WORDS = {float: "number", int: "whole number", str: "text", bool: "true or false", list: "list", dict: "object"}


def _is(value: Any, kind: type) -> bool:
    if kind in (int, float):
        wanted = (int, float) if kind is float else int
        return isinstance(value, wanted) and not isinstance(value, bool) and _usable(value)
    return isinstance(value, kind)


def _usable(number: int | float) -> bool:
    return -LARGEST < number < LARGEST and math.isfinite(number)
