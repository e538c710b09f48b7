"""The verb `edgeseg bench report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from edgeseg.atomic import atomic_write
from edgeseg.cli.terminal import progress_bar
from edgeseg.errors import InputError

from ..output import PATH, check_places
from .overlays import MOST, Overlays, overlays_of
from .page import markdown_page, page
from .result import Result, of_kind, read_results


@click.command()
@click.argument("results", nargs=-1, required=True, type=PATH)
@click.option("-o", "--output", type=PATH, help="Write the page there, as one HTML file.")
@click.option("--markdown", type=PATH, help="Write the table there, as Markdown.")
@click.option(
    "--overlays",
    type=click.IntRange(1, MOST),
    metavar="N",
    help="Run N images of each accuracy result again and show their label maps; needs bundle and data set.",
)
def report(results: tuple[Path, ...], output: Path | None, markdown: Path | None, overlays: int | None) -> None:
    """Make one page of RESULTS: what bench accuracy, latency, model, compare and demo wrote with -o or --json."""
    places = [path for path in (output, markdown) if path]
    if not places:
        todo = "give -o report.html, --markdown table.md, or both"
        raise InputError("make a report", "no file is named for it", todo)
    if overlays and not output:
        todo = "give -o report.html, or leave --overlays out"
        raise InputError("show label maps", "they are part of the page, and no file is named for it", todo)
    check_places(*places)
    found = read_results(results)
    shown = _label_maps(found, overlays) if overlays else None
    if output:
        _write(output, page(found, shown))
    if markdown:
        _write(markdown, markdown_page(found))


def _label_maps(found: Sequence[Result], count: int) -> Overlays:
    scored = of_kind(found, "accuracy")
    if not scored:
        todo = "add a result of bench accuracy, or leave --overlays out"
        raise InputError("show label maps", "none of the results is the accuracy of one engine", todo)
    with progress_bar("segmenting images") as progress:
        return overlays_of(scored, count, progress)


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    click.echo(path)
