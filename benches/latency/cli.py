"""The verb `edgeseg bench latency`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from edgeseg.cli.options import (
    classes_options,
    engine_options,
    parse_settings,
    resolve_classes,
    vocabulary_option,
)
from edgeseg.cli.terminal import progress_bar
from edgeseg.selection import Request
from edgeseg.vocabulary import Vocabulary

from ..output import PATH, check_places, finish, parse_canvas
from .classes import USUAL, first, stand_in
from .describe import lines
from .effort import Effort
from .job import Bar, Job, measure_all
from .subject import Subject, opened
from .sweep import parse_sweeps

_SOURCES = ("classes", "file", "dataset", "vocabulary")


@click.command()
@click.argument("bundle", type=PATH)
@click.option("--image", type=PATH, help="Default: the bundle's own reference image, which needs no resizing.")
@vocabulary_option
@classes_options
@click.option("--canvas", metavar="HxW", help="Default: the smallest that holds the image.")
@click.option("--sweep", multiple=True, metavar="AXIS=N,N", help="classes=1,10,150 or batch=1,2: measure with each.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of the bundle's family.")
@click.option("--runs", type=click.IntRange(1), help="Measure exactly so many runs.")
@click.option("--seconds", type=click.FloatRange(0), default=30.0, show_default=True, help="Measure for so long.")
@click.option("--in-order", is_flag=True, help="Run graphs one after the other even where they could overlap.")
@engine_options
@click.option("--threads", type=int, help="CPU threads; default: one per physical core.")
@click.option("-o", "--output", type=PATH, help="Write the result there, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.pass_context
def latency(ctx: click.Context, /, bundle: Path, output: Path | None, as_json: bool, **options: Any) -> None:
    """Time an image through the engines of BUNDLE, stage by stage, and say whether the numbers are to be trusted.

    Without class names 150 stand-ins are taken, whose text is not encoded.
    """
    check_places(output)
    sweeps, canvas = parse_sweeps(options["sweep"]), parse_canvas(options["canvas"])
    effort = Effort(options["runs"], options["seconds"])
    settings = parse_settings(options["settings"])
    job = Job(options["image"], canvas, sweeps.batches, effort, options["in_order"], settings)
    bar = partial(progress_bar, shown=not as_json)
    with opened(bundle, request(options), in_order=job.in_order) as subject:
        vocabularies = choose_classes(subject, options, sweeps.classes, bar)
        body = {**subject.describe(), "threads": options["threads"], "stand_in_classes": not _named(options)}
        body |= measure_all(subject, job, vocabularies, bar)
    finish(ctx, "bench latency", body, output, None if as_json else lines(body))


def request(options: dict[str, Any]) -> Request:
    """Which engines the options ask for."""
    return Request(*(options[name] for name in ("backend", "precision", "device", "threads")))


def choose_classes(subject: Subject, options: dict[str, Any], counts: tuple[int, ...], bar: Bar) -> list[Vocabulary]:
    """One vocabulary for each count, or one: of the named classes, or of stand-ins if none are named."""
    segmenter = subject.segmenter
    if not _named(options):
        return [stand_in(segmenter.bundle, count) for count in counts or (USUAL,)]
    asked = resolve_classes(**{name: options[name] for name in (*_SOURCES, "training", "new")})
    with bar("encoding class names") as encoded:
        whole = segmenter.vocabulary(asked.source, asked.overlap, encoded)
    return [first(whole, count) for count in counts] or [whole]


def _named(options: dict[str, Any]) -> bool:
    return any(options[name] is not None for name in _SOURCES)
