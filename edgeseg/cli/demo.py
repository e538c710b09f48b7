"""`edgeseg demo`: the whole chain once, from a checkpoint to label maps, through the same verbs that a user types."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from edgeseg.atomic import atomic_write
from edgeseg.cli.terminal import size_words
from edgeseg.environment import envelope
from edgeseg.errors import EdgesegError, InputError

CLASSES = "sky, building, tree, road, car, person"
PRECISIONS = ("fp32", "fp16", "int8")
CALIBRATED = "int8 was calibrated, and every engine checked, on these photos alone"
SECONDS = "5"  # of `bench latency`, for each precision


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("photos", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--classes", default=CLASSES, show_default=True, help="Class names, separated by commas.")
@click.option("--size", "sizes", multiple=True, metavar="HxW", help="A canvas; can be repeated. Default: the preset's.")
@click.option("-o", "--output", default="demo", show_default=True, type=click.Path(path_type=Path), help="A folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def demo(
    checkpoint: Path, photos: tuple[Path, ...], *, classes: str, sizes: tuple[str, ...], output: Path, as_json: bool
) -> None:
    """Take CHECKPOINT through every step, and segment PHOTOS with it in fp32, fp16 and int8.

    Leaves in the output folder a bundle, label maps and overlays for each precision, demo.json and report.html.
    """
    _require_names(photos)
    bundle = output / f"{checkpoint.stem}.bundle"
    output.mkdir(parents=True, exist_ok=True)
    words = [word for size in sizes for word in ("--size", size)]
    words += [word for photo in photos for word in ("--reference", str(photo))]
    _verb("export", str(checkpoint), *words, "-o", str(bundle), "--overwrite")
    _verb("quantize", str(bundle), "--precision", "fp16")
    _verb("quantize", str(bundle), "--precision", "int8", "--images", str(_listed(photos, output)))
    for precision in PRECISIONS:
        repair = ["--repair"] if precision != PRECISIONS[0] else []
        _verb("build", str(bundle), "--backend", "onnxruntime", "--precision", precision, *repair)
    compiled = _compile_ahead(bundle)
    rows = _measure(bundle, photos, classes, output)
    result = json.dumps(envelope("demo", bundle=str(bundle), precisions=rows, compiled=compiled), allow_nan=False)
    with atomic_write(output / "demo.json") as temporary:
        temporary.write_text(result + "\n", "utf-8")
    timings = [_time(bundle, precision, photos[0], classes, output) for precision in PRECISIONS]
    _verb("bench", "report", str(output / "demo.json"), *timings, "-o", str(output / "report.html"))
    if as_json:
        click.echo(result)
        return
    _show(rows, bundle)
    places = ", ".join(f"{output}/{precision}" for precision in PRECISIONS)
    click.echo(f"{compiled}\nlabel maps and overlays: {places}\nreport: {output}/report.html")


def _require_names(photos: tuple[Path, ...]) -> None:
    """Results are named after the photos. Raises InputError."""
    stems = [photo.stem for photo in photos]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise InputError("segment the photos", f"two of them are called {twice}", "rename one of them")


def _verb(*words: str) -> None:
    """Run a verb, saying so; its error is the demo's."""
    from edgeseg.cli import group

    click.echo("$ edgeseg " + " ".join(words), err=True)
    group.main(list(words), prog_name="edgeseg", standalone_mode=False)


def _compile_ahead(bundle: Path) -> str:
    """What NVIDIA's compiler makes of the fp16 graphs, on any machine; where it is not installed, how to get it."""
    try:
        _verb("build", str(bundle), "--backend", "tensorrt_rtx", "--target", "sm89", "--precision", "fp16")
    except EdgesegError as error:
        return f"tensorrt_rtx: not built ({error.found}; {error.todo})"
    return "tensorrt_rtx: compiled for sm89; the first device that opens the engines checks them"


def _listed(photos: tuple[Path, ...], output: Path) -> Path:
    """A file that lists the photos: what int8 is calibrated on here, for want of more."""
    path = output / "photos.txt"
    path.write_text("".join(f"{photo.resolve()}\n" for photo in photos), "utf-8")
    return path


def _time(bundle: Path, precision: str, photo: Path, classes: str, output: Path) -> str:
    """Path of what `bench latency` says."""
    path = str(output / f"latency-{precision}.json")
    engines = [str(bundle), "--backend", "onnxruntime", "--precision", precision]
    _verb("bench", "latency", *engines, "--image", str(photo), "--classes", classes, "--seconds", SECONDS, "-o", path)
    return path


def _measure(bundle: Path, photos: tuple[Path, ...], classes: str, output: Path) -> list[dict[str, Any]]:
    """For each precision: bytes of its graphs, seconds per photo, share of pixels labelled as in fp32."""
    import numpy as np

    import edgeseg

    rows, first = [], []
    for precision in PRECISIONS:
        seconds, equal = [], []
        with edgeseg.open(bundle, backend="onnxruntime", precision=precision) as segmenter:
            for index, photo in enumerate(photos):
                segmenter(photo, classes=classes)  # loads the engines
                start = time.monotonic()
                result = segmenter(photo, classes=classes)
                seconds.append(time.monotonic() - start)
                result.save(output / precision, photo.stem)
                first += [result.labels] if precision == PRECISIONS[0] else []
                equal.append(float(np.mean(result.labels == first[index])))
        size = _weight_bytes(bundle, precision)
        rows.append(
            {"precision": precision, "size_bytes": size, "latency_s": sorted(seconds)[len(seconds) // 2],
             "agreement": sum(equal) / len(equal)}
        )  # fmt: skip
    return rows


def _weight_bytes(bundle: Path, precision: str) -> int:
    """Of the files that a CPU reads: of a graph with two forms the plain one."""
    manifest = json.loads((bundle / "bundle.json").read_text("utf-8"))
    graphs = [g for g in manifest["graphs"] if g["precision"] == precision and g["name"] != "text"]
    plain = {(g["name"], *(g["canvas"] or ())) for g in graphs if g["form"] == "plain"}
    read = [g for g in graphs if g["form"] == "plain" or (g["name"], *(g["canvas"] or ())) not in plain]
    return sum(manifest["files"][path]["bytes"] for path in {path for g in read for path in (g["file"], *g["data"])})


def _show(rows: list[dict[str, Any]], bundle: Path) -> None:
    table = Table(
        title=f"{bundle} on this CPU (onnxruntime; read, preprocess, chain, compose; text cached)", caption=CALIBRATED
    )
    for heading in ("precision", "size without text encoder", "seconds a photo", "labels as in fp32"):
        table.add_column(heading, justify="right")
    for row in rows:
        latency, agreement = f"{row['latency_s']:.2f}", f"{row['agreement']:.2%}"
        table.add_row(row["precision"], size_words(row["size_bytes"]), latency, agreement)
    Console().print(table)
