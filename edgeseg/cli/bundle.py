"""`edgeseg inspect` and `edgeseg pack`: what a bundle holds, and the lean copy of it for a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeseg.bundle import Bundle
from edgeseg.bundle.pack import PackChoice
from edgeseg.bundle.pack import pack as pack_bundle
from edgeseg.bundle.summary import layers_text, summary
from edgeseg.cli import printable
from edgeseg.cli.terminal import print_json, progress_bar, size_words
from edgeseg.schema import PRECISIONS, Size, parse_size


def _sizes(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[Size, ...]:
    try:
        return tuple(parse_size(value) for value in values)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command("inspect")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def inspect(bundle: Path, as_json: bool) -> None:
    """Show what BUNDLE holds: where it came from, its graphs, and its engines with what their gate found."""
    body = summary(Bundle.open(bundle))
    if as_json:
        print_json("inspect", **body)
    else:
        _show(body)


@click.command("pack")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--precision", type=click.Choice(PRECISIONS), help="Keep this precision; needed if there are several.")
@click.option("--backend", metavar="NAME", help="Keep the engines of this backend in place of their graphs.")
@click.option("--device", metavar="KEY", help="Of these engines keep those of one device key (sm87-trt10.3.0).")
@click.option(
    "--canvas", "canvases", metavar="HxW", multiple=True, callback=_sizes, help="Keep this canvas; may be repeated."
)
@click.option("--no-text", is_flag=True, help="Leave out the text encoder; the copy then needs vocabulary files.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The bundle to make.")
@click.option("--overwrite", is_flag=True, help="Take the place of a bundle that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def pack(bundle: Path, output: Path, overwrite: bool, as_json: bool, **choice: Any) -> None:
    """Copy only what a device needs of BUNDLE into a new bundle."""
    source = Bundle.open(bundle)
    kept = PackChoice(text=not choice.pop("no_text"), **choice)
    with progress_bar("packing", shown=not as_json, bytes_=True) as report:
        made = pack_bundle(source, output, kept, overwrite=overwrite, progress=report)
    if as_json:
        print_json("pack", source_bytes=source.size_bytes, **summary(made))
    else:
        click.echo(f"{output}: {size_words(made.size_bytes)} of {size_words(source.size_bytes)}")


def _show(body: dict[str, Any]) -> None:
    console = Console(highlight=False)
    console.print(_facts(body))
    console.print(_graphs(body["graphs"]))
    if body["engines"]:
        console.print(_engines(body["engines"]))
    if body["selections"]:
        console.print(_selections(body["selections"]))


def _facts(body: dict[str, Any]) -> Table:
    table, source = Table.grid(padding=(0, 2)), body["source"]
    hub = f" ({source['hub']})" if source["hub"] else ""
    _row(table, "bundle", f"{body['path']}, {size_words(body['size_bytes'])} in {body['files']} files")
    _row(table, "family", f"{body['family']}, {body['name']}")
    _row(table, "checkpoint", f"{source['checkpoint']}{hub}, sha256 {source['sha256'][:12]}")
    _row(table, "licence of weights", source["licence"])
    _row(table, "canvases (HxW)", ", ".join(body["canvases"]))
    _row(table, "format", f"{body['format']}, written by edgeseg {body['written_by']}")
    return table


def _graphs(graphs: list[dict[str, Any]]) -> Table:
    """One row per graph and precision; its canvases share a row, and the weights they share count once."""
    table = Table("graph", "precision", "canvases", "size", "parameters", "inputs", "outputs")
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for graph in graphs:
        rows.setdefault((graph["name"], graph["precision"]), []).append(graph)
    for (name, precision), members in rows.items():
        weights = {tuple(graph["weights"]): graph["weights_bytes"] for graph in members}
        size = size_words(sum(weights.values()) + sum(graph["size_bytes"] for graph in members))
        if all(graph["packed_away"] for graph in members):
            size = "engines only"
        canvases = " ".join(graph["canvas"] for graph in members)
        tensors = (_tensors(members[0][side]) for side in ("inputs", "outputs"))
        _row(table, name, precision, canvases, size, f"{members[0]['parameters'] / 1e6:.1f} M", *tensors)
    return table


def _engines(engines: list[dict[str, Any]]) -> Table:
    table = Table("engine", "device", "graph", "precision", "canvas", "size", "gate", "obtained")
    for engine in engines:
        gate = engine["gate"] + (f", cosine {engine['cosine']:.5f}" if engine["cosine"] is not None else "")
        gate += ", made from an older graph" if engine["outdated"] else ""
        names = (engine[key] for key in ("backend", "device", "graph", "precision", "canvas"))
        obtained = layers_text(engine["layers"]) + (f", see {engine['report']}" if engine["report"] else "")
        _row(table, *names, size_words(engine["size_bytes"]), gate, obtained)
    return table


def _selections(selections: list[dict[str, Any]]) -> Table:
    """What `edgeseg build --precision auto` chose, and what the gate of the whole chain found."""
    table = Table("auto for", "device", "precision of each graph", "canvases", "gate", "report")
    for one in selections:
        chosen = ", ".join(f"{graph} {precision}" for graph, precision in one["precisions"].items())
        gate = f"cosine {one['cosine']:.5f}"
        gate += f", labels {one['agreement']:.2%}" if one["agreement"] is not None else ""
        _row(table, one["backend"], one["device"], chosen, " ".join(one["canvases"]), gate, one["report"])
    return table


def _tensors(tensors: list[dict[str, Any]]) -> str:
    return "\n".join(f"{tensor['name']} {'x'.join(map(str, tensor['shape']))}" for tensor in tensors)


def _row(table: Table, *cells: str) -> None:
    """Adds a row of texts from a bundle: no markup, and nothing that steers the terminal but the line breaks."""
    table.add_row(*(Text("\n".join(printable(line) for line in cell.split("\n"))) for cell in cells))
