"""`edgeseg query`: which segments of one or many photos a text describes best."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgeseg.backends.base import Session
from edgeseg.bundle import Bundle
from edgeseg.cli import printable
from edgeseg.cli.terminal import print_json
from edgeseg.errors import InputError
from edgeseg.images import load
from edgeseg.schema import GraphSpec
from edgeseg.segments.overlay import draw_segments, write_picture
from edgeseg.segments.query import Match, load_all, rank
from edgeseg.segments.segments import Segments
from edgeseg.selection import Request, choose
from edgeseg.vocabulary import VocabularyMaker


@click.command("query")
@click.argument("words", nargs=-1, required=True, metavar="FILE... TEXT")
@click.option("--bundle", type=click.Path(path_type=Path), help="Encodes the text; default: the one that made FILE.")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="How many segments to name.")
@click.option("--overlay", type=click.Path(path_type=Path), help="Draw the segments over their photos, into a folder.")
@click.option("--backend", metavar="NAME", help="Runs the text encoder; default: the best one that works here.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def query(words: tuple[str, ...], *, bundle: Path | None, top: int, overlay: Path | None, **options: Any) -> None:
    """Rank the segments of every FILE, written by `edgeseg segments`, by how well TEXT describes them."""
    paths, text = [Path(word) for word in words[:-1]], words[-1]
    if not paths:
        raise InputError(f"query {text!r}", "no file of segments is named", 'edgeseg query segments.npz "a red cup"')
    many = load_all(paths)
    row = _encoded(Path(many[0].bundle) if bundle is None else bundle, text, many[0], options["backend"])
    matches = rank(many, row, top)
    drawn = [] if overlay is None else _draw(overlay, paths, many, matches)
    if options["as_json"]:
        listed = [
            {**asdict(match), "file": str(paths[match.file]), "image": many[match.file].image} for match in matches
        ]
        print_json("query", text=text, matches=listed, overlays=[str(path) for path in drawn])
        return
    for match in matches:
        left, upper, right, lower = match.box
        place = f"segment {match.segment} of {paths[match.file]}, {left},{upper} to {right},{lower}"
        click.echo(printable(f"{match.score:.3f}  {place}, {match.area} pixels"))
    if not matches:
        click.echo("there is no segment in these files")


def _encoded(path: Path, text: str, segments: Segments, backend: str | None) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The text's embedding (D,), from the bundle whose text encoder the segments' embeddings were made for."""
    if str(path) in ("", ".") or not path.exists():
        found = f"the bundle that made the segments, {str(path)!r}, is not there"
        raise InputError(f"query {text!r}", found, "name it: --bundle BUNDLE")
    opened = Bundle.open(path)

    def open_session(graph: GraphSpec, _path: Path) -> Session:
        return choose(opened, [graph.name], Request(backend=backend)).open_text(opened, graph)

    maker = VocabularyMaker(opened, open_session)
    if segments.encoder != maker.encoder:
        found = "the bundle's text encoder is not the one that the segments' embeddings were made for"
        raise InputError(f"query {text!r}", found, "give the bundle that made the segments, or make them again")
    row: np.ndarray[Any, np.dtype[np.float32]] = maker.vocabulary([text]).embeddings[0]
    return row


def _draw(folder: Path, paths: list[Path], many: list[Segments], matches: list[Match]) -> list[Path]:
    """One PNG per photo that has a match. Raises InputError where a photo is no longer where it was."""
    drawn = []
    for number in sorted({match.file for match in matches}):
        segments = many[number]
        rgb = load(segments.image).rgb
        if rgb.shape[:2] != segments.size:
            found = f"{segments.image} is another photo than the one that {paths[number]} was made of"
            raise InputError("draw the segments", found, "make the segments again")
        chosen = segments.runs.take([match.segment for match in matches if match.file == number])
        target = folder / f"{paths[number].stem}.png"
        drawn.append(write_picture(draw_segments(rgb, chosen), target))
    return drawn
