"""`edgeseg bench rejection`: what early rejection of classes (`--top-k`) or another setting saves, and what it changes.

Every round runs each image once as usual and once in each other way, in turn, so that a slow moment of the machine
falls on all of them alike.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

import edgeseg
from edgeseg.backends.base import Stream
from edgeseg.cli.options import (
    classes_options,
    engine_options,
    parse_settings,
    resolve_classes,
    vocabulary_option,
)
from edgeseg.cli.run import find_images
from edgeseg.cli.terminal import progress_bar
from edgeseg.errors import InputError
from edgeseg.segmenter import Segmenter
from edgeseg.vocabulary import Vocabulary

from .latency.cli import request
from .latency.spans import HOST_STEPS
from .latency.statistics import summarise
from .output import PATH, check_places, finish

USUAL_COUNTS = "8,16,32"


@dataclass(frozen=True)
class Way:
    """How an image is labelled: by all classes, or so many of them; with what is set. `shown` is in words."""

    shown: str
    top_k: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Runs:
    """An `edgeseg.chain.Observer` that counts how often each graph ran."""

    counts: Counter[str] = field(default_factory=Counter)

    def step(self, name: str, stream: Stream | None) -> AbstractContextManager[object]:
        """See `Observer`."""
        if name not in HOST_STEPS:
            self.counts[name] += 1
        return nullcontext()


@click.command()
@click.argument("bundle", type=PATH)
@click.argument("inputs", nargs=-1, required=True, metavar="IMAGE|FOLDER|GLOB...")
@vocabulary_option
@classes_options
@click.option("--top-k", metavar="N,N", help=f"How many classes are kept; default: {USUAL_COUNTS}.")
@click.option("--vary", metavar="NAME=VALUE,VALUE", help="Values of a setting, in the place of --top-k.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of the family, for all rows.")
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Rounds over the images.")
@engine_options
@click.option("--threads", type=int, help="CPU threads; default: one per physical core.")
@click.option("-o", "--output", type=PATH, help="Write the result there, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.pass_context
def rejection(ctx: click.Context, /, bundle: Path, inputs: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Time images with and without early rejection, and compare their label maps with those of all classes.

    With --vary it is another setting whose values are compared with its default.
    """
    output = options["output"]
    check_places(output)
    settings = parse_settings(options["settings"])
    ways = _ways(options["top_k"], options["vary"], settings)
    names = ("classes", "file", "dataset", "vocabulary", "training", "new")
    asked, images = resolve_classes(**{name: options[name] for name in names}), find_images(inputs)
    place = request(options)
    with edgeseg.open(bundle, place.backend, place.precision, device=place.device, threads=place.threads) as segmenter:
        words = segmenter.vocabulary(asked.source, asked.overlap)
        with progress_bar("rounds", shown=not as_json) as report:
            rows = _measure(segmenter, words, images, ways, (options["runs"], report))
        plan = segmenter.plan
        place_rows = {"backend": plan.backend.name, "device": plan.device_key, "precision": plan.precision}
    counts = {"classes": len(words.names), "images": len(images), "runs": options["runs"]}
    body = {**place_rows, "settings": settings, **counts, "rows": rows}
    finish(ctx, "bench rejection", body, output, None if as_json else _lines(body))


def _ways(top_k: str | None, vary: str | None, settings: Mapping[str, str]) -> list[Way]:
    """The usual way first."""
    if vary is None:
        counts = _counts(top_k or USUAL_COUNTS)
        return [Way("all classes", None, settings), *(Way(f"top {k}", k, settings) for k in counts)]
    if top_k is not None:
        raise InputError("use --top-k with --vary", "they are measured one at a time", "leave one of the two out")
    ((name, values),) = parse_settings([vary]).items()
    changed = [{**settings, name: value.strip()} for value in values.split(",")]
    return [Way("as usual", None, settings), *(Way(f"{name}={each[name]}", None, each) for each in changed)]


def _counts(text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise InputError(f"use --top-k {text}", "it is no list of counts from 1 on", "write 8,16,32")
    return list(dict.fromkeys(counts))


def _measure(
    segmenter: Segmenter, words: Vocabulary, images: Sequence[Path], ways: Sequence[Way], effort: tuple[int, Any]
) -> list[dict[str, Any]]:
    """One row for each way; the first round warms up, counts the graphs' runs and compares, but is not timed."""
    runs, report = effort
    times: list[list[float]] = [[] for _ in ways]
    equal: list[list[float]] = [[] for _ in ways]
    seen = [Runs() for _ in ways]
    for number in range(runs + 1):
        for image in images:
            usual = None
            for place, way in enumerate(ways):
                segmenter.observer = None if number else seen[place]
                start = time.perf_counter()
                labels = segmenter(image, words, top_k=way.top_k, settings=way.settings).labels
                elapsed_ms = (time.perf_counter() - start) * 1e3
                usual = labels if usual is None else usual
                if number:
                    times[place].append(elapsed_ms)
                else:
                    equal[place].append(float((labels == usual).mean()))
        report(number + 1, runs + 1)
    first_ms = summarise(times[0]).p50_ms
    return [
        {
            "way": way.shown,
            "top_k": way.top_k,
            "latency": vars(summarise(times[place])),
            "ratio": summarise(times[place]).p50_ms / first_ms,
            "graph_runs": {name: count / len(images) for name, count in seen[place].counts.items()},
            "agreement": float(np.mean(equal[place])),
            "worst_agreement": min(equal[place]),
        }
        for place, way in enumerate(ways)
    ]


def _lines(body: dict[str, Any]) -> Iterator[str]:
    counts = f"{body['classes']} classes, {body['images']} images, {body['runs']} rounds"
    yield f"{counts}, {body['backend']} {body['precision']}"
    first = body["rows"][0]["way"]
    for row in body["rows"]:
        shares = f"{row['agreement']:.2%} of the pixels alike, worst image {row['worst_agreement']:.2%}"
        time_ms = f"{row['latency']['p50_ms']:.0f} ms, middle half within {row['latency']['spread_percent']:.0f} %"
        ran = ", ".join(f"{name} {count:g}" for name, count in row["graph_runs"].items())
        yield f"{row['way']}: {time_ms}, {row['ratio']:.2f} of {first}; {shares}; runs of graphs: {ran}"
