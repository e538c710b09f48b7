"""`edgeseg bench rejection`: what early rejection of classes (`--top-k`) saves, and what it changes.

Every round runs each image once with all classes and once per k, in turn, so that a slow moment of the machine falls on
all of them alike.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

import edgeseg
from edgeseg.cli.options import classes_options, engine_options, resolve_classes, vocabulary_option
from edgeseg.cli.run import find_images
from edgeseg.cli.terminal import progress_bar
from edgeseg.errors import InputError
from edgeseg.segmenter import Segmenter
from edgeseg.vocabulary import Vocabulary

from .latency.cli import request
from .latency.statistics import summarise
from .output import PATH, check_places, finish


@click.command()
@click.argument("bundle", type=PATH)
@click.argument("inputs", nargs=-1, required=True, metavar="IMAGE|FOLDER|GLOB...")
@vocabulary_option
@classes_options
@click.option("--top-k", default="8,16,32", show_default=True, metavar="N,N", help="How many classes are kept.")
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Rounds over the images.")
@engine_options
@click.option("--threads", type=int, help="CPU threads; default: one per physical core.")
@click.option("-o", "--output", type=PATH, help="Write the result there, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.pass_context
def rejection(ctx: click.Context, /, bundle: Path, inputs: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Time images with and without early rejection, and compare their label maps with those of all classes."""
    output = options["output"]
    check_places(output)
    kept = _counts(options["top_k"])
    names = ("classes", "file", "dataset", "vocabulary", "training", "new")
    asked, images = resolve_classes(**{name: options[name] for name in names}), find_images(inputs)
    place = request(options)
    with edgeseg.open(bundle, place.backend, place.precision, device=place.device, threads=place.threads) as segmenter:
        words = segmenter.vocabulary(asked.source, asked.overlap)
        with progress_bar("rounds", shown=not as_json) as report:
            rows = _measure(segmenter, words, images, kept, (options["runs"], report))
        plan = segmenter.plan
        place_rows = {"backend": plan.backend.name, "device": plan.device_key, "precision": plan.precision}
    body = {**place_rows, "classes": len(words.names), "images": len(images), "runs": options["runs"], "rows": rows}
    finish(ctx, "bench rejection", body, output, None if as_json else _lines(body))


def _counts(text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise InputError(f"use --top-k {text}", "it is no list of counts from 1 on", "write 8,16,32")
    return list(dict.fromkeys(counts))


def _measure(
    segmenter: Segmenter, words: Vocabulary, images: Sequence[Path], kept: Sequence[int], effort: tuple[int, Any]
) -> list[dict[str, Any]]:
    """One row for all classes (k is null) and one per k; the first round warms up and is not counted."""
    (runs, report), settings = effort, [None, *kept]
    times: dict[int | None, list[float]] = {k: [] for k in settings}
    equal: dict[int | None, list[float]] = {k: [] for k in settings}
    for number in range(runs + 1):
        for image in images:
            full = None
            for k in settings:
                start = time.perf_counter()
                labels = segmenter(image, words, top_k=k).labels
                elapsed_ms = (time.perf_counter() - start) * 1e3
                full = labels if full is None else full
                if number:
                    times[k].append(elapsed_ms)
                else:
                    equal[k].append(float((labels == full).mean()))
        report(number + 1, runs + 1)
    usual = summarise(times[None]).p50_ms
    return [
        {
            "top_k": k,
            "latency": vars(summarise(times[k])),
            "ratio": summarise(times[k]).p50_ms / usual,
            "agreement": float(np.mean(equal[k])),
            "worst_agreement": min(equal[k]),
        }
        for k in settings
    ]


def _lines(body: dict[str, Any]) -> Iterator[str]:
    counts = f"{body['classes']} classes, {body['images']} images, {body['runs']} rounds"
    yield f"{counts}, {body['backend']} {body['precision']}"
    for row in body["rows"]:
        what = "all classes" if row["top_k"] is None else f"top {row['top_k']}"
        shares = f"{row['agreement']:.2%} of the pixels alike, worst image {row['worst_agreement']:.2%}"
        time_ms = f"{row['latency']['p50_ms']:.0f} ms, middle half within {row['latency']['spread_percent']:.0f} %"
        yield f"{what}: {time_ms}, {row['ratio']:.2f} of all classes; {shares}"
