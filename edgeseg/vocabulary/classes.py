"""Where class names come from: `--classes`, a text file, a dataset's name, a list in Python.

A name is one prompt, taken as it is written but for spaces around it. Every other oddity is an `InputError`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from edgeseg.errors import InputError
from edgeseg.vocabulary.cleaning import clean

DATASETS = (
    "ade20k-150",
    "ade20k-847",
    "camvid-11",
    "coco-stuff-171",
    "pascal-context-459",
    "pascal-context-59",
    "voc-20",
)
FILE_LIMIT_BYTES = 1 << 20

_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")  # control characters, lone surrogates, line and paragraph separators


@dataclass(frozen=True)
class ClassList:
    """Class names that have been checked, before anything is encoded.

    Attributes:
        names: C prompts, unique, in the order of the labels.
        synonyms: for each class the strings that are looked up among the training strings. A dataset brings its own; a
            user's name has its comma-separated parts.
    """

    names: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...]


def class_list(classes: str | Iterable[str] | ClassList) -> ClassList:
    """Class names in any form that the Python API takes.

    Args:
        classes: one string in the syntax of `--classes`, or names, each taken whole, or what this function returned.
    """
    if isinstance(classes, ClassList):
        return classes
    if isinstance(classes, str):
        return parse_classes(classes)
    return _user_classes(list(classes), "use the class list")


def parse_classes(text: str) -> ClassList:
    """The value of `--classes`: names between commas, or the name of one of `DATASETS` alone."""
    if text.strip() in DATASETS:
        return dataset_classes(text.strip())
    names = text.split(",") if text.strip() else []
    return _user_classes(names, "use --classes")


def read_class_file(path: Path) -> ClassList:
    """A UTF-8 text file with one class per line; a line is taken whole, so commas and `#` are part of the name."""
    asked = f"read class names from {path}"
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise InputError(asked, error.strerror or str(error), "give a readable text file") from None
    except UnicodeDecodeError as error:
        found = f"byte {error.start} is not UTF-8 text"
        raise InputError(asked, found, "save the names as UTF-8 text, one per line") from None
    if len(data) > FILE_LIMIT_BYTES:
        found = f"it is larger than {FILE_LIMIT_BYTES} bytes"
        raise InputError(asked, found, "give a text file with one class per line")
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n") if text.strip() else []
    return _user_classes(lines, asked)


def dataset_classes(name: str) -> ClassList:
    """The classes of one of `DATASETS`, as the authors of EBSeg prompt them, with their training synonyms."""
    if name not in DATASETS:
        known = f"the known ones are {', '.join(DATASETS)}"
        raise InputError(f"use the classes of the dataset {name!r}", known, "give one of these, or a file of names")
    rows = [line.split("\t") for line in data_lines(f"{name}.tsv")]
    return ClassList(tuple(row[0] for row in rows), tuple(tuple(row[1:]) for row in rows))


def data_lines(file: str) -> list[str]:
    """The lines of a file of `edgeseg/data`, not stripped: one training string of EBSeg begins with a space."""
    text = resources.files("edgeseg").joinpath("data", file).read_text(encoding="utf-8")
    return text.removesuffix("\n").split("\n")


def check_names(names: Sequence[object], asked: str) -> tuple[str, ...]:
    """Names without the spaces around them; an `InputError` for no names, an empty, unprintable or repeated name."""
    if not names:
        raise InputError(asked, "the class list is empty", "give at least one class name")
    checked = tuple(_check_name(name, number, asked) for number, name in enumerate(names, start=1))
    seen: dict[str, str] = {}
    for name in checked:
        key = clean(name)
        if key in seen:
            found = f"{seen[key]!r} and {name!r} are the same prompt to the text encoder"
            raise InputError(asked, found, "name each class once")
        seen[key] = name
    return checked


def _check_name(name: object, number: int, asked: str) -> str:
    if not isinstance(name, str):
        raise InputError(asked, f"class {number} is {type(name).__name__}, not text", "give names as strings")
    bad = next((char for char in name.strip(" \t") if unicodedata.category(char) in _UNPRINTABLE), None)
    if bad is not None:
        found = f"class {number} holds the unprintable character U+{ord(bad):04X}"
        raise InputError(asked, found, "remove it from the name")
    if not clean(name):
        raise InputError(asked, f"class {number} has an empty name", "remove it, or give it a name")
    return name.strip()


def _user_classes(names: Sequence[object], asked: str) -> ClassList:
    checked = check_names(names, asked)
    return ClassList(checked, tuple(tuple(part.strip() for part in name.split(",")) for name in checked))
