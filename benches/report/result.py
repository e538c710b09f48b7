"""Results of measurements, read from the JSON files that the verbs wrote. A file may come from anyone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeseg.errors import InputError

from .forms import ASKED, FORMS, IMAGES, SCHEMA, kind_of
from .shape import misfit

LIMIT_BYTES = 1 << 26
"""More than ten times the largest: 847 classes with their confusion matrix, each image's counts beside it."""

_TODO = "give files that `edgeseg bench ... -o` or `edgeseg demo --json` wrote"

EngineKey = tuple[str, str, str]


@dataclass(frozen=True, eq=False)
class Result:
    """One file.

    Attributes:
        number: from 1, in the order in which the files were given; how a report refers to it.
        file: its name without the folder.
        kind: a key of `FORMS`.
        body: what it holds; has at least the form of its kind.
    """

    number: int
    file: str
    kind: str
    body: dict[str, Any]

    @property
    def engine(self) -> EngineKey | None:
        """What ran: results with the same key belong to the same engines. None where nothing ran, or several things."""
        if "engines_sha256" not in self.body:
            return None
        return self.body["engines_sha256"], self.body["backend"], self.body["precision"]

    @property
    def name(self) -> str:
        """Model, precision and backend, as far as there are any; else the command."""
        words = [self.body[key] for key in ("model", "precision", "backend") if key in self.body]
        return " ".join(words) or str(self.body["command"])

    @property
    def source(self) -> str:
        """The file, and when it was written, which older results do not say."""
        date = self.body.get("date")
        return f"{self.file}, {date}" if isinstance(date, str) else self.file

    @property
    def command_line(self) -> str:
        """What was typed, or at least the verb."""
        return str(self.body.get("command_line") or f"edgeseg {self.body['command']}")


def read_results(paths: Iterable[Path]) -> list[Result]:
    """All files, numbered. Raises InputError as `read_result` does, or if there is none."""
    results = [read_result(path, number) for number, path in enumerate(paths, 1)]
    if not results:
        raise InputError("report results", "no file is given", _TODO)
    return results


def read_result(path: Path, number: int = 1) -> Result:
    """One file.

    Raises:
        InputError: it cannot be read, is no result, or one of another schema or command.
    """
    asked = f"read the result {path}"
    body = _parse(path, asked)
    found = misfit(body, {"schema": int, "command": str})
    if found:
        raise InputError(asked, found, _TODO)
    if body["schema"] != SCHEMA:
        found = f"its schema is {body['schema']} and this edgeseg knows {SCHEMA}"
        raise InputError(asked, found, "take the edgeseg that wrote it, or measure again")
    kind = kind_of(body)
    if kind == "accuracy" and "mask_recall" in body and "scores" not in body:
        found = "it holds the mask recall of a SAM alone, of which reports have no section"
        raise InputError(asked, found, "leave it out of the report")
    if kind is None:
        known = "bench accuracy, latency, model and compare, and demo"
        raise InputError(asked, f"it is of the command {body['command']!r}, and reports know {known}", _TODO)
    names = ASKED.keys() & body if kind in ("accuracy", "latency") else ()
    asked_for = {name: ASKED[name] for name in names}
    found = misfit(body, FORMS[kind] | asked_for) or (_images_misfit(body) if kind == "accuracy" else None)
    if found:
        raise InputError(asked, f"{found}, so it is damaged or not of this version", "measure again")
    return Result(number, path.name, kind, body)


def _images_misfit(body: dict[str, Any]) -> str | None:
    """What is wrong with the counts of each image, if there are any."""
    rows = body.get("per_image", [])
    found = misfit(rows, IMAGES, "per_image")
    if found:
        return found
    for row in rows:
        classes, *counts = (row[name] for name in IMAGES[0] if name != "key")
        known = all(0 <= index < len(body["classes"]) for index in classes) and len(set(classes)) == len(classes)
        if not known or any(len(column) != len(classes) for column in counts):
            return f"per_image of {row['key']!r} does not fit the classes"
    return None


def of_kind(results: Sequence[Result], kind: str) -> list[Result]:
    """Those of one kind, in order."""
    return [result for result in results if result.kind == kind]


def _parse(path: Path, asked: str) -> Any:
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise InputError(asked, error.strerror or str(error), "give a readable file") from None
    if len(data) > LIMIT_BYTES:
        raise InputError(asked, f"it is larger than {LIMIT_BYTES >> 20} MiB", _TODO)
    try:
        return json.loads(data.decode("utf-8-sig"), parse_constant=_no_number)
    except RecursionError:
        raise InputError(asked, "it is nested too deep", _TODO) from None
    except ValueError as error:
        raise InputError(asked, f"it is no JSON ({error})", _TODO) from None


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number")
