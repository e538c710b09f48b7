"""The verb `edgeseg bench model`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from edgeseg.bundle import Bundle
from edgeseg.cli.options import engine_options
from edgeseg.cli.terminal import progress_bar
from edgeseg.errors import BundleError

from ..identity import shown_path
from ..latency.classes import USUAL
from ..latency.cli import request
from ..latency.effort import Effort
from ..latency.subject import opened
from ..output import PATH, check_places, finish, parse_canvas
from .describe import lines
from .job import Job, count_bundle, measure_bundle


@click.command()
@click.argument("bundle", type=PATH)
@click.option("--canvas", metavar="HxW", help="Default: the bundle's first.")
@click.option("--count", type=click.IntRange(1), default=USUAL, show_default=True, help="Number of classes.")
@click.option("--count-only", is_flag=True, help="Count the graphs; open no engine and measure nothing.")
@click.option("--image", type=PATH, help="What goes through the graphs; default: the bundle's own reference image.")
@click.option("--runs", type=click.IntRange(1), help="Measure exactly so many runs.")
@click.option("--seconds", type=click.FloatRange(0), default=30.0, show_default=True, help="Measure for so long.")
@engine_options
@click.option("--threads", type=int, help="CPU threads; default: one per physical core.")
@click.option("-o", "--output", type=PATH, help="Write the result there, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.pass_context
def model(ctx: click.Context, /, bundle: Path, output: Path | None, as_json: bool, **options: Any) -> None:
    """Count parameters and operations of every graph of BUNDLE, and what its engines reach of this machine's roofline.

    Graphs run one after the other for this; `edgeseg bench latency` times them as they run in use.
    """
    check_places(output)
    effort = Effort(options["runs"], options["seconds"])
    job = Job(parse_canvas(options["canvas"]), options["count"], options["image"], effort)
    if options["count_only"]:
        body = _counted(Bundle.open(bundle), options["precision"], job)
    else:
        with opened(bundle, request(options), in_order=True) as subject:
            bar = partial(progress_bar, shown=not as_json)
            body = {**subject.describe(), "threads": options["threads"], **measure_bundle(subject, job, bar)}
    finish(ctx, "bench model", body, output, None if as_json else lines(body))


def _counted(bundle: Bundle, precision: str | None, job: Job) -> dict[str, Any]:
    chosen = precision or bundle.precisions()[0]
    if chosen not in bundle.precisions():
        found = f"it holds {', '.join(bundle.precisions())}"
        raise BundleError(f"count the {chosen} graphs of {bundle.path}", found, "take one of these")
    about = {"bundle": shown_path(bundle.path), "model": bundle.manifest.name, "precision": chosen}
    return {**about, **count_bundle(bundle, chosen, job)}
