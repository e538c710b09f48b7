"""The verb `edgeseg build`."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from edgeseg.cli.terminal import print_json
from edgeseg.errors import InputError
from edgeseg.schema import PRECISIONS, Size, parse_size, to_json

if TYPE_CHECKING:
    from .auto import Auto
    from .compiler import Compiler
    from .making import Built
    from .request import Request

AUTO = "auto"

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--backend", help="onnxruntime, tensorrt or tensorrt_rtx. Default: the best one that works here.")
@click.option(
    "--precision",
    type=click.Choice((*PRECISIONS, AUTO)),
    help="auto: measure all, take what is fastest and passes. Default: fp16 on a GPU if there, else fp32.",
)
@click.option("--canvas", "canvases", multiple=True, metavar="HxW", help="Only this canvas; may be repeated.")
@click.option("--target", metavar="sm86,sm89", help="Build for these GPUs with tensorrt_rtx; needs no GPU here.")
@click.option("--memory-limit", metavar="4GiB", help="Most scratch memory that an engine may use.")
@click.option("--repair", is_flag=True, help="When the gate fails, change graphs step by step until it passes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def build(bundle: Path, backend: str | None, *, target: str | None, as_json: bool, **wishes: Any) -> None:
    """Turn the graphs of BUNDLE into engines of this machine, or of the machines named with --target.

    Engines that run here are gated: they must give the reference results, or nothing is kept and the exit code is 8.
    """
    from .auto import build_auto
    from .builder import build
    from .choice import choose

    request = _request(**wishes)
    compiler = choose(backend, parse_targets(target))
    if request.precision == AUTO:
        _show_auto(bundle, compiler, build_auto(bundle, compiler, request, shown=not as_json), as_json)
    else:
        _show(bundle, compiler, build(bundle, compiler, request, shown=not as_json), as_json)


def _request(precision: str | None, canvases: tuple[str, ...], memory_limit: str | None, repair: bool) -> Request:
    from .request import Request

    if repair and precision == AUTO:
        found = "auto takes what passes as it is, and --repair changes one precision until it passes"
        raise InputError("build with --repair --precision auto", found, "name the precision to repair")
    limit = None if memory_limit is None else parse_bytes(memory_limit)
    return Request(precision, tuple(parse_canvas(text) for text in canvases), limit, repair)


def _show(bundle: Path, compiler: Compiler, built: list[Built], as_json: bool) -> None:
    from . import tables

    reports = tables.reports(bundle, built)
    if as_json:
        engines = [_engine(item) for item in built]
        print_json("build", **_where(bundle, compiler), engines=engines, reports=reports)
        return
    click.echo(f"{bundle}: {len(built)} engines for {compiler.backend} {compiler.device}")
    console = Console(soft_wrap=True, highlight=False)
    console.print(tables.engines_table(built))
    for report in reports:
        if report["kind"] == "repair":
            console.print(tables.repair_table(report))


def _show_auto(bundle: Path, compiler: Compiler, auto: Auto, as_json: bool) -> None:
    from . import tables
    from .auto import entry
    from .gate import words

    if as_json:
        chains, graphs = [asdict(chain) for chain in auto.chains], [entry(row) for row in auto.rows]
        engines, selection = [_engine(item) for item in auto.built], to_json(auto.selection)
        parts = {"engines": engines, "chains": chains, "graphs": graphs, "selection": selection}
        print_json("build", **_where(bundle, compiler), **parts)
        return
    click.echo(f"{bundle}: {len(auto.built)} engines for {compiler.backend} {compiler.device}")
    console = Console(soft_wrap=True, highlight=False)
    console.print(tables.chains_table(auto))
    console.print(tables.auto_table(auto))
    click.echo(f"together: {words(auto.selection.gate)}; `edgeseg run` takes this choice here")


def _where(bundle: Path, compiler: Compiler) -> dict[str, str]:
    return {"bundle": str(bundle), "backend": compiler.backend, "device": compiler.device}


def _engine(item: Built) -> dict[str, Any]:
    return asdict(item) | {"engine": to_json(item.engine)}


def parse_bytes(text: str) -> int:
    """Reads "4GiB", "512MiB", "4G" or a plain number of bytes. Raises InputError for anything else."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d+)?)\s*([KMG]?)(?:iB|B)?", text.strip())
    size_bytes = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    if size_bytes < 1:
        raise InputError("use --memory-limit", f"{text[:40]!r} is not a size", "write it like 4GiB or 512MiB")
    return size_bytes


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
