"""HTML from values. Text is escaped where it enters, once, and what is HTML already is a `Html`."""

from __future__ import annotations

import html
from collections.abc import Iterable

from edgeseg.cli import printable

MOST_CHARACTERS = 4000
"""Of one text: a name of a megabyte is no name."""


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


Part = str | Html | None


def escaped(text: Part) -> Html:
    """Text as HTML; no control characters, no lone surrogates, nothing that reverses the direction of reading."""
    if text is None or isinstance(text, Html):
        return text or Html()
    shown = text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"
    return Html(html.escape(printable(shown)))


def tag(element: str, /, *parts: Part, **attributes: str | None) -> Html:
    """An element with its content. `class_` is the attribute class; an underscore in a name is a hyphen."""
    return Html(f"<{element}{_attributes(attributes)}>{join(parts)}</{element}>")


def void(element: str, /, **attributes: str | None) -> Html:
    """An element without content."""
    return Html(f"<{element}{_attributes(attributes)}>")


def join(parts: Iterable[Part]) -> Html:
    """One behind the other."""
    return Html("".join(map(escaped, parts)))


def _attributes(given: dict[str, str | None]) -> str:
    pairs = [(name.rstrip("_").replace("_", "-"), value) for name, value in given.items() if value is not None]
    return "".join(f' {name}="{escaped(value)}"' for name, value in pairs)
