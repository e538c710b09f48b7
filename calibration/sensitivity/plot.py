"""A report's plot as SVG: one bar per block, as long as the share of labels that it changes."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

ROW, TOP, NAME, BARS, RIGHT = 18, 64, 250, 420, 110  # pixels: a row's height, the head, and the three columns
LOW, RAISED = "#4c78a8", "#e45756"
STYLE = "font-family:sans-serif;font-size:12px"


def draw(found: dict[str, Any]) -> str:
    """The SVG document. `found`: the body of a report."""
    blocks, budget = found["blocks"], found["budget"] or {"lifted": [], "single": []}
    raised = {*budget["lifted"], *budget["single"]}
    longest = max((one["different_percent"] for one in blocks), default=0.0) or 1.0
    width, height = NAME + BARS + RIGHT, TOP + ROW * len(blocks) + 10
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'style="{STYLE}">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(10, 22, f"{found['model']}: labels that differ with one block in {found['precision']}, percent", "start"),
        *(_legend(found["precision"]) if raised else ()),
    ]
    for index, one in enumerate(blocks):
        lines += _bar(TOP + ROW * index, one, longest, RAISED if one["block"] in raised else LOW)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _bar(top: int, one: dict[str, Any], longest: float, colour: str) -> list[str]:
    length = BARS * one["different_percent"] / longest
    return [
        _text(NAME - 8, top + 13, one["block"], "end"),
        f'<rect x="{NAME}" y="{top + 2}" width="{length:.1f}" height="{ROW - 4}" fill="{colour}"/>',
        _text(int(NAME + length + 6), top + 13, f"{one['different_percent']:.3f}", "start"),
    ]


def _legend(precision: str) -> list[str]:
    words = ((LOW, f"stays {precision}"), (RAISED, "raised to hold the budget"))
    lines = []
    for place, (colour, word) in enumerate(words):
        left = NAME + 150 * place
        lines.append(f'<rect x="{left}" y="36" width="12" height="12" fill="{colour}"/>')
        lines.append(_text(left + 18, 47, word, "start"))
    return lines


def _text(x: int, y: int, words: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(words)}</text>'
