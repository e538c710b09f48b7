"""Prompt banks: phrases that say how a class looks, by class and attribute (docs/vocabulary.md).

A bank is a file; nothing here asks a language model. A phrase follows the class name inside a template: "A photo of a
{}" with the class "cat" and the phrase "with soft fur" is "A photo of a cat with soft fur".
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from edgeseg.errors import InputError
from edgeseg.vocabulary.classes import ClassList, check_names, class_list, dataset_classes

BANKS = ("ade20k-150", "camvid-11", "voc-20")
"""Banks that ship; each has the classes of the dataset of its name."""

SCHEMA = 1
LIMIT_BYTES = 1 << 22


@dataclass(frozen=True, eq=False)
class PromptBank:
    """Phrases by class and attribute.

    Attributes:
        name: of the bank, or its path.
        phrases: class → attribute → phrases.
    """

    name: str
    phrases: Mapping[str, Mapping[str, tuple[str, ...]]]

    @classmethod
    def open(cls, source: str) -> PromptBank:
        """One of `BANKS` by name, or a file by path. Raises InputError for anything that is not as documented."""
        asked = f"read the prompt bank {source}"
        if source in BANKS:
            text = resources.files("edgeseg").joinpath("data", f"bank-{source}.json").read_text("utf-8")
        else:
            text = _read(Path(source), asked)
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(asked, f"it is no JSON ({error})", "mend the file") from None
        return cls(source, _checked(content, asked))

    @property
    def attributes(self) -> tuple[str, ...]:
        """Every attribute, in the order in which they first appear."""
        return tuple(dict.fromkeys(attribute for phrases in self.phrases.values() for attribute in phrases))

    @property
    def classes(self) -> ClassList:
        """Its classes, in its order; those of a bank that ships with their dataset's synonyms."""
        return dataset_classes(self.name) if self.name in BANKS else class_list(list(self.phrases))

    @property
    def digest(self) -> str:
        """64 hex digits of what it says."""
        return hashlib.sha256(json.dumps(_plain(self.phrases), sort_keys=True).encode()).hexdigest()

    def only(self, attributes: Collection[str]) -> PromptBank:
        """The bank with some of its attributes. Raises InputError for one that it has not."""
        for attribute in attributes:
            if attribute not in self.attributes:
                found = f"it has {', '.join(self.attributes)}"
                raise InputError(f"use the attribute {attribute!r} of {self.name}", found, "choose from these")
        kept = {
            name: {attribute: said for attribute, said in phrases.items() if attribute in attributes}
            for name, phrases in self.phrases.items()
        }
        return PromptBank(self.name, kept)

    def groups(self, name: str) -> list[tuple[str, ...]]:
        """The phrases of a class, one group per attribute of the bank. Raises InputError for a class it has not."""
        if name not in self.phrases:
            found = "it says nothing of this class"
            raise InputError(f"describe {name!r} by the prompt bank {self.name}", found, "add it, or leave it out")
        return [tuple(self.phrases[name].get(attribute, ())) for attribute in self.attributes]


def _read(path: Path, asked: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT_BYTES + 1)
        if len(data) > LIMIT_BYTES:
            raise InputError(asked, f"it is larger than {LIMIT_BYTES} bytes", "give a smaller file")
        return data.decode("utf-8-sig")
    except OSError as error:
        todo = f"give a readable file, or one of {', '.join(BANKS)}"
        raise InputError(asked, error.strerror or str(error), todo) from None
    except UnicodeDecodeError as error:
        raise InputError(asked, f"byte {error.start} is not UTF-8 text", "save it as UTF-8") from None


def _checked(content: Any, asked: str) -> dict[str, dict[str, tuple[str, ...]]]:
    todo = 'write {"schema": 1, "classes": {"cat": {"colour": ["in grey"]}}}, see docs/vocabulary.md'
    if not isinstance(content, dict) or set(content) != {"schema", "classes"} or content["schema"] != SCHEMA:
        raise InputError(asked, f"it is no object with schema {SCHEMA} and classes", todo)
    classes = content["classes"]
    if not isinstance(classes, dict):
        raise InputError(asked, "its classes are no object", todo)
    check_names(list(classes), asked)
    made: dict[str, dict[str, tuple[str, ...]]] = {}
    for name, phrases in classes.items():
        lists = isinstance(phrases, dict) and all(isinstance(said, list) for said in phrases.values())
        if not lists or not all(_is_phrase(one) for said in phrases.values() for one in said):
            raise InputError(asked, f"what it says of {name!r} is not attribute → list of one-line phrases", todo)
        made[name.strip()] = {attribute: tuple(one.strip() for one in said) for attribute, said in phrases.items()}
    return made


def _is_phrase(value: object) -> bool:
    return (
        isinstance(value, str)
        and bool(value.strip())
        and not any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in value)
    )


def _plain(phrases: Mapping[str, Mapping[str, tuple[str, ...]]]) -> dict[str, list[tuple[str, list[str]]]]:
    return {name: [(attribute, list(said)) for attribute, said in by.items()] for name, by in phrases.items()}
