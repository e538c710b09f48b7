"""The verb `edgeseg quantize`."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeseg.cli.terminal import print_json, progress_bar
from edgeseg.errors import BuildError
from edgeseg.schema import size_text, to_json

from .sensitivity.options import MIXED, Question, study_options
from .sensitivity.summary import summary
from .sources import LIMIT, Source, find_photos, find_ranges, find_ranges_for

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle

    from .makers import Quantized
    from .ranges import Ranges

PRECISIONS = ("fp16", "int8", "fp8", MIXED)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--precision", required=True, metavar="NAME", help=f"One of {', '.join(PRECISIONS)}.")
@click.option("--images", type=click.Path(path_type=Path), help="Images to calibrate on: a folder, or a list of paths.")
@click.option("--limit", type=click.IntRange(min=1), help=f"Use this many of them.  [default: {LIMIT}]")
@click.option("--seed", type=int, help="Of the order in which they are taken.  [default: 0]")
@click.option("--ranges", type=click.Path(path_type=Path), help="Ranges of an earlier calibration, in their place.")
@study_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def quantize(
    bundle: Path,
    precision: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Add graphs of a lower precision to BUNDLE, made from its fp32 graphs.

    int8 and fp8 are calibrated on images like those they are meant for: some dozens, no labels. fp16 needs no images;
    with them, it is measured where fp16 is too narrow. An interrupted calibration goes on where it was when it is
    started again. The ranges are kept in the bundle, and used when no images are given.

    mixed is int8 but for the blocks that must not be, so that a budget holds (--budget).
    """
    if precision not in PRECISIONS:
        raise BuildError(
            f"quantize to {precision}",
            f"this version makes {', '.join(PRECISIONS)}",
            f"use --precision {PRECISIONS[1]}",
        )
    from edgeseg.bundle import Bundle

    source = Source(**{name: options.pop(name) for name in ("images", "ranges", "limit", "seed")})
    question = Question.of(**options)
    question.check(precision)
    opened = Bundle.open(bundle)
    study: dict[str, Any] | None = None
    ranges: Ranges | None
    if question.wanted(precision):
        precision, done, ranges, study = _studied(opened, precision, source, question, shown=not as_json)
    else:
        done, ranges = _quantized(opened, precision, source, not as_json)
    if as_json:
        calibration = to_json(ranges.images) if ranges else None
        body = {"calibration": calibration, "graphs": [_entry(item) for item in done]}
        body |= {"study": study} if study else {}
        print_json("quantize", bundle=str(bundle), precision=precision, **body)
    else:
        click.echo(_line(bundle, precision, done) + (summary(study) if study else ""))


def _quantized(bundle: Bundle, precision: str, source: Source, shown: bool) -> tuple[list[Quantized], Ranges | None]:
    from . import quantize as quantizers

    measured = source != Source() or quantizers.RANGES_FILE in bundle.manifest.files
    if precision == "fp16":
        found = find_ranges(bundle, source, shown) if measured else None
        with progress_bar("quantize", shown=shown) as report:
            return quantizers.quantize_bundle(bundle, report, found), found
    ranges = find_ranges(bundle, source, shown)
    with progress_bar("quantize", shown=shown) as report:
        return quantizers.quantize_calibrated(bundle, precision, ranges, report), ranges


def _studied(
    bundle: Bundle, precision: str, source: Source, question: Question, *, shown: bool
) -> tuple[str, list[Quantized], Ranges, dict[str, Any]]:
    """Measured, and then made: the precision asked for, or with a budget "mixed"; also which of the two."""
    from .sensitivity import verb

    bar = partial(progress_bar, shown=shown)
    photos = find_photos(bundle, source, shown)
    ranges = find_ranges_for(bundle, source, photos, shown)
    study, body = verb.measure(bundle, precision, ranges, photos, question=question, bar=bar)
    with bar("quantize") as report:
        done = verb.add_studied(study, body, report)
    if question.report:
        verb.write_report(question.report, body)
    return (precision if study.found is None else MIXED), done, ranges, body


def _entry(item: Quantized) -> dict[str, Any]:
    return {
        "graph": item.graph.name,
        "canvas": size_text(item.graph.canvas),
        "form": item.graph.form,
        "file": item.graph.file,
        "conversion": asdict(item.conversion) if item.conversion else None,
        "quantized": asdict(item.inserted) if item.inserted else None,
    }


def _line(bundle: Path, precision: str, done: list[Quantized]) -> str:
    done = [item for item in done if item.graph.form == "typed"]
    kinds = {
        precision: {item.graph.name for item in done if item.inserted or (precision == "fp16" and item.conversion)},
        "fp32": {item.graph.name for item in done if item.graph.file.startswith("graphs/fp32/")},
    }
    kinds.setdefault("fp16", {item.graph.name for item in done} - kinds[precision] - kinds["fp32"])
    count = sum(item.graph.name in kinds[precision] for item in done)
    texts = [f"{', '.join(sorted(names))} stay {kind}" for kind, names in kinds.items() if kind != precision and names]
    return f"{bundle}: {'; '.join([f'{count} graphs in {precision}', *texts])}"
