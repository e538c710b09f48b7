"""`edgeseg vocab`: class names to a vocabulary file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeseg.backends.base import Session
from edgeseg.bundle import Bundle
from edgeseg.cli import printable
from edgeseg.cli.options import classes_options, resolve_classes
from edgeseg.cli.terminal import print_json, progress_bar
from edgeseg.errors import InputError
from edgeseg.pipelines import get_pipeline
from edgeseg.schema import GraphSpec
from edgeseg.selection import Request, choose
from edgeseg.vocabulary.bank import BANKS, PromptBank


@click.command("vocab")
@click.argument("bundle", type=click.Path(path_type=Path))
@classes_options
@click.option("--bank", metavar="NAME|FILE", help=f"Prompt bank that says how classes look: {', '.join(BANKS)}.")
@click.option("--attributes", metavar="NAMES", help="Which attributes of the bank to use, separated by commas.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The file to write (.npz).")
@click.option("--backend", metavar="NAME", help="Runs the text encoder; default: the best one that works here.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def vocab(
    bundle: Path,
    output: Path,
    *,
    bank: str | None,
    attributes: str | None,
    backend: str | None,
    as_json: bool,
    **classes: Any,
) -> None:
    """Encode class names with BUNDLE's text encoder, each once, and write them to a file for `edgeseg run`."""
    phrases = _bank(bank, attributes)
    if phrases is not None and not any(classes[source] for source in ("classes", "file", "dataset")):
        classes["classes"] = phrases.classes
    request = resolve_classes(**classes)
    opened, encoded = Bundle.open(bundle), [0]

    def open_session(graph: GraphSpec, _path: Path) -> Session:
        return choose(opened, [graph.name], Request(backend=backend)).open_text(opened, graph)

    with progress_bar("encoding class names", shown=not as_json) as show:

        def report(done: int, total: int) -> None:
            encoded[0] = done
            show(done, total)

        maker = get_pipeline(opened.manifest).vocabulary_maker(opened, open_session)
        made = request.vocabulary(maker, report, phrases)
    made.save(output)
    if as_json:
        listed = [{"name": name, "training": bool(seen)} for name, seen in zip(made.names, made.overlap, strict=True)]
        dimensions = made.embeddings.shape[1]
        print_json("vocab", file=str(output), dimensions=dimensions, encoded=encoded[0], classes=listed)
    else:
        seen = int(made.overlap.sum())
        click.echo(printable(f"{output}: {len(made.names)} classes, of which {seen} were seen in training"))


def _bank(source: str | None, attributes: str | None) -> PromptBank | None:
    if source is None:
        if attributes is not None:
            raise InputError("use --attributes", "there is no --bank that they could be of", "give --bank too")
        return None
    bank = PromptBank.open(source)
    return bank if attributes is None else bank.only([part.strip() for part in attributes.split(",")])
