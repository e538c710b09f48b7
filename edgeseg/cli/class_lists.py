"""Lists of classes per image, as a large model or a person made them: a JSON file.

    {"street.jpg": ["road", "car"], "sofa.jpg": {"sofa": 95, "cat": 40}}

With numbers, which are confidences in percent, what is above `CONFIDENT` is taken; where nothing is, the first name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeseg.errors import InputError

CONFIDENT = 70
LIMIT_BYTES = 64 << 20

_TODO = 'write it like {"street.jpg": ["road", "car"]}'


@dataclass(frozen=True)
class ClassLists:
    """Classes of images, by the name of the file, with or without its ending."""

    path: Path
    lists: Mapping[str, tuple[str, ...]]

    def of(self, image: Path) -> tuple[str, ...]:
        """The classes of an image. Raises InputError where the file does not name it."""
        for name in (image.name, image.stem):
            if name in self.lists:
                return self.lists[name]
        found = f"{self.path} names no {image.name}"
        raise InputError(f"find the classes of {image}", found, "add the image to the file, or leave --class-lists out")


def read_class_lists(path: Path | None) -> ClassLists | None:
    """Read such a file; None for None. Raises InputError for any other file."""
    if path is None:
        return None
    asked = f"read the lists of classes {path}"
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT_BYTES + 1)
        content = json.loads(data) if len(data) <= LIMIT_BYTES else None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(asked, f"it cannot be read ({error})", _TODO) from None
    if not isinstance(content, dict):
        raise InputError(asked, "it is no JSON object, or too large", _TODO)
    return ClassLists(path, {name: _names(value, name, asked) for name, value in content.items()})


def _names(value: object, image: str, asked: str) -> tuple[str, ...]:
    if isinstance(value, dict) and all(type(number) in (int, float) for number in value.values()):
        value = [name for name, number in value.items() if number > CONFIDENT] or list(value)[:1]
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        raise InputError(asked, f"what it says of {image!r} is no list of names", _TODO)
    return tuple(value)
