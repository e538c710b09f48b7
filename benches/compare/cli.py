"""The verb `edgeseg bench compare`."""

from __future__ import annotations

from pathlib import Path

import click

from ..output import PATH, check_places, finish
from ..report.result import read_results
from .comparison import compare
from .describe import lines


@click.command(name="compare")
@click.argument("a", type=PATH)
@click.argument("b", type=PATH)
@click.option("--across", is_flag=True, help="Compare although machine, device, versions or power mode differ.")
@click.option("-o", "--output", type=PATH, help="Write the result there, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.pass_context
def command(ctx: click.Context, /, a: Path, b: Path, *, across: bool, output: Path | None, as_json: bool) -> None:
    """Say what B takes, or gets right, compared with A: two results of bench latency, or two of bench accuracy.

    The exit code is 0 whichever is faster or better, and 3 if the two must not be compared.
    """
    check_places(output)
    body = compare(*read_results([a, b]), across=across)
    finish(ctx, "bench compare", body, output, None if as_json else lines(body))
