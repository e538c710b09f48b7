"""The verb `edgeseg quantize`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeseg.cli.terminal import print_json, progress_bar
from edgeseg.errors import BuildError
from edgeseg.schema import size_text

if TYPE_CHECKING:
    from .quantize import Quantized


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--precision", required=True, help="fp16; the only one that this version makes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def quantize(bundle: Path, precision: str, as_json: bool) -> None:
    """Add graphs of a lower precision to BUNDLE, made from its fp32 graphs."""
    if precision != "fp16":
        raise BuildError(f"quantize to {precision}", "this version makes fp16 only", "use --precision fp16")
    from edgeseg.bundle import Bundle

    from .quantize import quantize_bundle

    with progress_bar("quantize", shown=not as_json) as report:
        done = quantize_bundle(Bundle.open(bundle), report)
    if as_json:
        print_json("quantize", bundle=str(bundle), precision=precision, graphs=[_entry(item) for item in done])
    else:
        click.echo(_line(bundle, done))


def _entry(item: Quantized) -> dict[str, Any]:
    return {
        "graph": item.graph.name,
        "canvas": size_text(item.graph.canvas),
        "file": item.graph.file,
        "conversion": asdict(item.conversion) if item.conversion else None,
    }


def _line(bundle: Path, done: list[Quantized]) -> str:
    kept = sorted({item.graph.name for item in done if not item.conversion})
    text = f"{bundle}: {sum(item.conversion is not None for item in done)} graphs in fp16"
    return f"{text}; {', '.join(kept)} stay fp32" if kept else text
