"""The sections of comparisons and demos, and the last one: where everything was measured, and what was typed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgeseg.cli.terminal import size_words

from ..accuracy.scores import CONVENTIONS
from .html import Html, Part, join, tag
from .parts import facts, heading, remarks
from .result import Result
from .stages import stage_level, stage_words
from .surroundings import surroundings
from .table import NOTHING, Cell, Table, milliseconds, number


def comparison_section(results: Sequence[Result]) -> Html | None:
    """None without results."""
    return tag("section", tag("h2", "Comparisons"), *map(_comparison, results)) if results else None


def demo_section(results: Sequence[Result]) -> Html | None:
    """None without results."""
    return tag("section", tag("h2", "Demo"), *map(_demo, results)) if results else None


def environment_section(results: Sequence[Result]) -> Html:
    """Each environment once, with the results that were measured there."""
    groups: dict[tuple[tuple[str, str], ...], list[Result]] = {}
    for result in results:
        found = surroundings({"environment": result.body["environment"]})
        groups.setdefault(tuple(found.items()), []).append(result)
    blocks = [part for said, members in groups.items() for part in _environment(dict(said), members)]
    several = f"{len(groups)} environments: times of different ones are not to be compared with each other."
    warning = tag("p", tag("b", "⚠ "), several, class_="doubt") if len(groups) > 1 else None
    return tag("section", tag("h2", "Environment"), warning, *blocks)


def command_section(results: Sequence[Result]) -> Html:
    """What was typed."""
    items = [
        tag("li", tag("p", f"[{result.number}] {result.source}"), tag("pre", result.command_line)) for result in results
    ]
    return tag("section", tag("h2", "Commands"), tag("ul", *items, class_="plain"))


def _environment(said: Mapping[str, str], members: Sequence[Result]) -> Iterator[Html]:
    yield tag("p", "Results ", " ".join(f"[{result.number}]" for result in members))
    versions = {name.removeprefix("version of "): text for name, text in said.items() if name.startswith("version of ")}
    yield facts({name: text for name, text in said.items() if not name.startswith("version of ")})
    yield facts(versions)


def _comparison(result: Result) -> Html:
    body = result.body
    title = tag("h3", tag("span", f"[{result.number}]", class_="mark"), " B against A", id=f"result-{result.number}")
    sides: dict[str, Part] = {side.upper(): _side(body[side]) for side in ("a", "b")}
    apart = [f"{one['what']}: {one['a']} in A, {one['b']} in B" for one in body["differences"]]
    warning = tag("p", tag("b", "⚠ "), "A and B were not measured alike:", class_="doubt") if apart else None
    tables = [_stages(row).html() for row in body["measurements"]] if "measurements" in body else [_miou(body).html()]
    return join([title, facts(sides), warning, remarks(apart, "doubt"), *tables, remarks(body["notes"])])


def _side(one: Mapping[str, Any]) -> str:
    return f"{one['model']} {one['precision']} on {one['backend']} {one['device']} ({one['file']})"


def _stages(row: Mapping[str, Any]) -> Table:
    rows = [
        [
            Cell(stage_words(stage), indent=stage_level(stage)),
            *(milliseconds(stage[f"{side}_p50_ms"]) for side in ("a", "b")),
            *(number(stage[name], 3) for name in ("ratio", "ratio_low", "ratio_high")),
            Cell(stage["verdict"]),
        ]
        for stage in row["stages"]
    ]
    columns = ["stage", "A p50 ms", "B p50 ms", "B / A", "95 % from", "to", "verdict"]
    batch = f", {row['batch']} images at once" if row["batch"] > 1 else ""
    return Table(columns, rows, f"{row['classes']} classes{batch}")


def _miou(body: Mapping[str, Any]) -> Table:
    names = ("a_miou", "b_miou", "difference", "low", "high")
    found = [(name, body["miou"][name]) for name in CONVENTIONS]
    rows = [
        [Cell(name), *(number(row[f"{key}_percent"]) for key in names), Cell(row["verdict"])] for name, row in found
    ]
    return Table(["convention", "A mIoU %", "B mIoU %", "difference", "95 % from", "to", "verdict"], rows)


def _demo(result: Result) -> Html:
    rows = [
        [
            Cell(row["precision"]),
            Cell(size_words(row["size_bytes"]), number=True),
            milliseconds(1e3 * row["latency_s"]),
            number(100 * row["agreement"]),
        ]
        for row in result.body["precisions"]
    ]
    columns = ["precision", "size without text encoder", "median ms a photo", "labels as in fp32 %"]
    said = "Read, preprocess, graphs and compose, class names encoded before. A demo, not a measurement."
    compiled = tag("p", result.body["compiled"] or NOTHING)
    return join([heading(result), tag("p", said, class_="quiet"), Table(columns, rows).html(), compiled])
