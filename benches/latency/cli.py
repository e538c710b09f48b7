"""The verb `edgeseg bench latency`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click

from edgeseg.atomic import atomic_write
from edgeseg.cli import printable
from edgeseg.cli.options import classes_options, parse_settings, resolve_classes, vocabulary_option
from edgeseg.cli.terminal import progress_bar
from edgeseg.environment import envelope
from edgeseg.errors import InputError, StorageError
from edgeseg.schema import Size, parse_size
from edgeseg.selection import Request
from edgeseg.vocabulary import Vocabulary

from .classes import USUAL, first, stand_in
from .describe import lines
from .effort import Effort
from .job import Bar, Job, measure_all
from .subject import Subject, opened
from .sweep import parse_sweeps

PATH = click.Path(path_type=Path)
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
@click.option("--backend", metavar="NAME", help="Default: the best one that has engines for this machine.")
@click.option("--precision", metavar="NAME", help="Default: the best one there is for the backend.")
@click.option("--device", type=int, default=0, show_default=True, help="Index of the GPU.")
@click.option("--threads", type=int, help="CPU threads; default: one per physical core.")
@click.option("-o", "--output", type=PATH, help="Write the result there, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.pass_context
def latency(ctx: click.Context, /, bundle: Path, output: Path | None, as_json: bool, **options: Any) -> None:
    """Time an image through the engines of BUNDLE, stage by stage, and say whether the numbers are to be trusted.

    Without class names 150 stand-ins are taken, whose text is not encoded.
    """
    check_place(output)
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


def parse_canvas(text: str | None) -> Size | None:
    """The value of `--canvas`. Raises InputError."""
    try:
        return parse_size(text) if text else None
    except ValueError as error:
        raise InputError("use --canvas", str(error), "give one of the bundle's canvases, as in 384x480") from None


def choose_classes(subject: Subject, options: dict[str, Any], counts: tuple[int, ...], bar: Bar) -> list[Vocabulary]:
    """One vocabulary for each count, or one: of the named classes, or of stand-ins if none are named."""
    segmenter = subject.segmenter
    if not _named(options):
        return [stand_in(segmenter.bundle, count) for count in counts or (USUAL,)]
    asked = resolve_classes(**{name: options[name] for name in (*_SOURCES, "training", "new")})
    with bar("encoding class names") as encoded:
        whole = segmenter.vocabulary(asked.source, asked.overlap, encoded)
    return [first(whole, count) for count in counts] or [whole]


def check_place(output: Path | None) -> None:
    """Minutes of measuring should not end in an error about a folder. Raises StorageError."""
    if output and (not output.parent.is_dir() or output.is_dir()):
        found = "it is a folder" if output.is_dir() else f"there is no folder {output.parent}"
        raise StorageError(f"write {output}", found, "choose another place, or make the folder first")


def finish(
    ctx: click.Context, command: str, body: dict[str, Any], output: Path | None, said: Iterator[str] | None
) -> None:
    """Write the result's file, and print the lines or, without any, the JSON."""
    result = envelope(command, command_line=ctx.meta.get("edgeseg.command_line"), **body)
    if output:
        with atomic_write(output) as temporary:
            text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
            temporary.write_text(_numbers_on_one_line(text) + "\n", encoding="utf-8")
    click.echo(json.dumps(result, allow_nan=False) if said is None else "\n".join(map(printable, said)))


def _numbers_on_one_line(text: str) -> str:
    """Indented JSON with each list of numbers on one line, so that a result can be read and compared by line."""
    return re.sub(
        r"\[\n[-+.eE\d\s,]+\]", lambda found: "[" + ", ".join(re.split(r"[\[\],\s]+", found[0])[1:-1]) + "]", text
    )


def _named(options: dict[str, Any]) -> bool:
    return any(options[name] is not None for name in _SOURCES)
