"""The whole report: one HTML file that needs nothing else, and the table of it as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import resources

import edgeseg
from edgeseg.cli import printable

from .accuracy import accuracy_section, agreement_section
from .chart import chart, legend
from .html import Html, join, tag, void
from .latency import latency_section
from .model import model_section
from .others import command_section, comparison_section, demo_section, environment_section
from .overlays import Overlays, overlay_section
from .pareto import fields
from .parts import remarks
from .result import Result, of_kind
from .summary import Row, notes, summary_rows, summary_table
from .table import markdown

TITLE = "edgeseg benchmarks"

# No script, no font, no picture from anywhere: what a hostile name might smuggle in would not run either.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(results: Sequence[Result], overlays: Overlays | None = None) -> str:
    """The report as HTML.

    Args:
        results: as read, at least one.
        overlays: label maps beside their photos.
    """
    rows = summary_rows(results)
    models = [result for result in results if result.kind in ("model", "count")]
    comparisons = [result for result in results if result.kind.endswith("comparison")]
    sections = [
        _summary(rows),
        accuracy_section(of_kind(results, "accuracy")),
        overlay_section(overlays or Overlays()),
        agreement_section(of_kind(results, "agreement")),
        latency_section(of_kind(results, "latency")),
        model_section(models),
        comparison_section(comparisons),
        demo_section(of_kind(results, "demo")),
        environment_section(results),
        command_section(results),
    ]
    made = tag("p", f"{len(results)} results; made by edgeseg {edgeseg.__version__}", class_="quiet")
    body = tag("main", tag("h1", TITLE), made, *sections)
    return f"<!DOCTYPE html>\n{tag('html', tag('head', *_head()), tag('body', body), lang='en')}\n"


def markdown_page(results: Sequence[Result]) -> str:
    """The table as Markdown, with its notes and, for each result, the file, its date and what was typed."""
    rows = summary_rows(results)
    lines = [f"- {markdown(note)}" for note in notes(rows)]
    sources = [f"- [{result.number}] {markdown(result.source)}: {_code(result.command_line)}" for result in results]
    machines = [f"- {markdown(line)}" for line in _machines(results)]
    table = summary_table(rows).markdown() if rows else "No result names engines.\n"
    return "\n\n".join([table.rstrip("\n"), *("\n".join(part) for part in (lines, sources, machines) if part)]) + "\n"


def _head() -> Iterator[Html]:
    style = resources.files("edgeseg.benches").joinpath("data/report.css").read_text("utf-8")
    yield void("meta", charset="utf-8")
    yield void("meta", name="viewport", content="width=device-width, initial-scale=1")
    yield void("meta", name="color-scheme", content="light dark")
    yield Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">')
    yield tag("title", TITLE)
    yield tag("style", Html(style))


def _summary(rows: Sequence[Row]) -> Html | None:
    if not rows:
        return None
    charts = [chart(field) for field in fields(rows)]
    said = remarks(notes(rows))
    drawn = join([*charts, legend()]) if charts else None
    return tag("section", tag("h2", "What it gives and what it costs"), drawn, summary_table(rows).html(), said)


def _machines(results: Sequence[Result]) -> list[str]:
    """One line for each environment: machine, device, power mode, versions."""
    groups: dict[str, list[str]] = {}
    for result in results:
        groups.setdefault(_machine(result), []).append(f"[{result.number}]")
    return [f"{' '.join(numbers)}: {words}" for words, numbers in groups.items()]


def _machine(result: Result) -> str:
    environment, body = result.body["environment"], result.body
    words = [environment["board"], f"{environment['cpu']} ({environment['cores']} cores)", body.get("device_name")]
    words.append(f"edgeseg {environment['edgeseg']}, Python {environment['python']}")
    words += [f"{name} {version}" for name, version in body.get("sdk", {}).items()]
    if result.kind == "latency":
        conditions = body["measurements"][0]["conditions"]
        words += [f"power mode {conditions['power_mode']}"] if conditions["power_mode"] else []
        words += [f"governor {' and '.join(conditions['governors'])}"] if conditions["governors"] else []
    return ", ".join(word for word in words if word)


def _code(text: str) -> str:
    """As code; a backquote or a line break in it would end that."""
    return f"`{printable(' '.join(text.replace('`', chr(39)).split()))}`"
