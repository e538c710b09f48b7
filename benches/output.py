"""What the commands of `edgeseg bench` share: a canvas as it is typed, and a result's place, its file, its printing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from edgeseg.atomic import atomic_write
from edgeseg.cli import printable
from edgeseg.environment import envelope
from edgeseg.errors import InputError, StorageError
from edgeseg.schema import Size, parse_size

PATH = click.Path(path_type=Path)


def parse_canvas(text: str | None) -> Size | None:
    """The value of `--canvas`. Raises InputError."""
    try:
        return parse_size(text) if text else None
    except ValueError as error:
        raise InputError("use --canvas", str(error), "give one of the bundle's canvases, as in 384x480") from None


def check_places(*places: Path | None) -> None:
    """Minutes of measuring should not end in an error about a folder; None is passed over. Raises StorageError."""
    for place in places:
        if place and (not place.parent.is_dir() or place.is_dir()):
            found = "it is a folder" if place.is_dir() else f"there is no folder {place.parent}"
            raise StorageError(f"write {place}", found, "choose another place, or make the folder first")


def finish(
    ctx: click.Context, command: str, body: dict[str, Any], output: Path | None, said: Iterable[str] | None
) -> None:
    """Write the result's file, and print the lines or, without any, the JSON."""
    result = envelope(command, command_line=ctx.meta.get("edgeseg.command_line"), **body)
    if output:
        with atomic_write(output) as temporary:
            text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
            temporary.write_text(numbers_on_one_line(text) + "\n", encoding="utf-8")
    click.echo(json.dumps(result, allow_nan=False) if said is None else "\n".join(map(printable, said)))


def numbers_on_one_line(text: str) -> str:
    """Indented JSON with each list of numbers on one line, so that a result can be read and compared by line.

    A text in it is left as it is: it cannot hold a line break.
    """
    return re.sub(
        r"\[\n[-+.eE\d\s,]+\]", lambda found: "[" + ", ".join(re.split(r"[\[\],\s]+", found[0])[1:-1]) + "]", text
    )
