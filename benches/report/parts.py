"""Pieces that several sections are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .html import Html, Part, tag
from .result import Result
from .table import NOTHING


def heading(result: Result) -> Html:
    """What a result is of; its number is how the rest of the page refers to it."""
    return tag("h3", tag("span", f"[{result.number}]", class_="mark"), " ", result.name, id=f"result-{result.number}")


def facts(said: Mapping[str, Part]) -> Html:
    """Names with their values; a dash where there is none."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", text or NOTHING)) for name, text in said.items()))


def remarks(texts: Iterable[str], kind: str = "remarks") -> Html | None:
    """A list, or nothing."""
    items = [tag("li", text) for text in texts]
    return tag("ul", *items, class_=kind) if items else None


def details(title: str, content: Html) -> Html:
    """Shown when its title is chosen."""
    return tag("details", tag("summary", title), content)
