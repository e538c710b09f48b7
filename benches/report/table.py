"""Tables of a report: rows of cells, which become HTML or Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgeseg.cli import printable

from .html import Html, Part, tag

NOTHING = "–"
"""In a cell without a value."""

_SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]<>#|~&!"})


@dataclass(frozen=True)
class Cell:
    """One value.

    Attributes:
        text: what is shown.
        share: 0 to 1, drawn as a bar beside a number; None draws none.
        number: set to the right, in digits of one width.
        indent: levels.
        quiet: less important than the rest of its row.
    """

    text: Part
    share: float | None = None
    number: bool = False
    indent: int = 0
    quiet: bool = False


@dataclass(frozen=True)
class Table:
    """Columns and rows; the first cell of a row names it."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str | None = None

    def html(self, *, tall: bool = False) -> Html:
        """In a box that scrolls by itself; one that is `tall` scrolls upwards too."""
        numeric = [all(row[column].number for row in self.rows) for column in range(len(self.columns))]
        heads = [
            tag("th", title, scope="col", class_="number" if right else None)
            for title, right in zip(self.columns, numeric, strict=True)
        ]
        body = [tag("tr", *(_cell(cell, index == 0) for index, cell in enumerate(row))) for row in self.rows]
        caption = tag("caption", self.caption) if self.caption else None
        whole = tag("table", caption, tag("thead", tag("tr", *heads)), tag("tbody", *body))
        kind = "scroll tall" if tall else "scroll"
        return tag("div", whole, class_=kind, tabindex="0", role="region", aria_label=self.caption or self.columns[0])

    def markdown(self) -> str:
        """A table of GitHub's Markdown."""
        numeric = [all(row[column].number for row in self.rows) for column in range(len(self.columns))]
        lines = [
            [markdown(title) for title in self.columns],
            ["---:" if right else "---" for right in numeric],
            *([markdown(str(cell.text or "")) for cell in row] for row in self.rows),
        ]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def markdown(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    return printable(" ".join(text.split())).translate(_SPECIAL)


def number(value: float | None, digits: int = 2, unit: str = "") -> Cell:
    """A number with so many digits behind the point; a dash for None."""
    if value is None or math.isnan(value):
        return Cell(NOTHING, number=True)
    return Cell(f"{value:,.{digits}f}{unit}", number=True)


def milliseconds(value: float) -> Cell:
    """Three digits that say something."""
    return number(value, 0 if value >= 1000 else 1 if value >= 100 else 2)


def _cell(cell: Cell, first: bool) -> Html:
    flags = {"number": cell.number, "quiet": cell.quiet, "nested": cell.indent, "barred": cell.share is not None}
    kind = " ".join(name for name, wanted in flags.items() if wanted) or None
    style = f"padding-left: {cell.indent * 1.2 + 0.6:.1f}rem" if cell.indent else None
    content: Part = cell.text
    if cell.share is not None:
        width = f"width: {100 * min(max(cell.share, 0.0), 1.0):.1f}%"
        bar = tag("span", tag("span", style=width, class_="fill"), class_="bar", aria_hidden="true")
        content = tag("span", bar, tag("span", cell.text, class_="figure"))
    if first:
        return tag("th", content, scope="row", class_=kind, style=style)
    return tag("td", content, class_=kind, style=style)
