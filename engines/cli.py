"""The verb `edgeseg build`."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeseg.cli.terminal import print_json
from edgeseg.errors import InputError
from edgeseg.schema import PRECISIONS, Size, parse_size, size_text, to_json

if TYPE_CHECKING:
    from .builder import Built
    from .compiler import Compiler

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--backend", help="onnxruntime, tensorrt or tensorrt_rtx. Default: the best one that works here.")
@click.option("--precision", type=click.Choice(PRECISIONS), help="Default: fp16 on a GPU if there, else fp32.")
@click.option("--canvas", "canvases", multiple=True, metavar="HxW", help="Only this canvas; may be repeated.")
@click.option("--target", metavar="sm86,sm89", help="Build for these GPUs with tensorrt_rtx; needs no GPU here.")
@click.option("--memory-limit", metavar="4GiB", help="Most scratch memory that an engine may use.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def build(
    bundle: Path,
    backend: str | None,
    precision: str | None,
    *,
    canvases: tuple[str, ...],
    target: str | None,
    memory_limit: str | None,
    as_json: bool,
) -> None:
    """Turn the graphs of BUNDLE into engines of this machine, or of the machines named with --target."""
    from .builder import Request, build
    from .choice import choose

    limit = None if memory_limit is None else parse_bytes(memory_limit)
    request = Request(precision, tuple(parse_canvas(text) for text in canvases), limit)
    compiler = choose(backend, parse_targets(target))
    built = build(bundle, compiler, request, shown=not as_json)
    if as_json:
        engines = [asdict(item) | {"engine": to_json(item.engine)} for item in built]
        print_json("build", bundle=str(bundle), backend=compiler.backend, device=compiler.device, engines=engines)
    else:
        click.echo(_table(bundle, compiler, built))


def parse_bytes(text: str) -> int:
    """Reads "4GiB", "512MiB", "4G" or a plain number of bytes. Raises InputError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)(?:iB|B)?", text.strip())
    if not match or float(match[1]) <= 0:
        raise InputError("use --memory-limit", f"{text!r} is not a size", "write it like 4GiB or 512MiB")
    return int(float(match[1]) * _UNITS[match[2]])


def parse_canvas(text: str) -> Size:
    """Reads "640x864" as (height, width). Raises InputError for anything else."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise InputError("use --canvas", str(error), "write it like 640x864") from error


def parse_targets(text: str | None) -> tuple[str, ...]:
    """Reads "sm86,sm89" as ("sm86", "sm89"); None as no targets. Raises InputError for anything else."""
    parts = [part.strip().lower() for part in text.split(",")] if text is not None else []
    wrong = [part for part in parts if not re.fullmatch(r"sm\d{2,3}", part)]
    if wrong:
        raise InputError("use --target", f"{wrong[0]!r} names no GPU generation", "write it like sm86,sm89")
    return tuple(parts)


def _table(bundle: Path, compiler: Compiler, built: list[Built]) -> str:
    lines = [f"{bundle}: {len(built)} engines for {compiler.backend} {compiler.device}"]
    return "\n".join([*lines, *(_line(item) for item in built)])


def _line(item: Built) -> str:
    engine = item.engine
    gate = f", cosine {engine.gate.cosine:.6f}" if engine.gate else ", ungated"
    name = f"  {engine.graph} {size_text(engine.canvas)} {engine.precision}{gate}"
    if item.kept:
        return f"{name}: was up to date"
    if not item.layers:
        form = "its cpu form" if engine.file.endswith(".cpu.onnx") else "the graph itself"
        return f"{name}: {form}"
    fused = item.layers["fused_attentions"]
    return f"{name}: {item.size_bytes / 2**20:.1f} MiB in {item.compile_s:.1f} s, {fused} fused attentions"
