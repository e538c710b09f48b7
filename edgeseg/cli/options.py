"""Options that several verbs share. Holds no logic of its own beyond turning options into values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

from edgeseg.errors import InputError
from edgeseg.pipelines.base import Maker
from edgeseg.vocabulary.bank import PromptBank
from edgeseg.vocabulary.classes import DATASETS, ClassList, class_list, dataset_classes, read_class_file
from edgeseg.vocabulary.maker import Progress
from edgeseg.vocabulary.vocabulary import Vocabulary

F = TypeVar("F", bound=Callable[..., object])

_HINT = 'give one of --classes "cat, dog", --file names.txt, --dataset ade20k-150'


@dataclass(frozen=True)
class ClassRequest:
    """The class options of a command line.

    Attributes:
        source: checked names that are still to be encoded, or a vocabulary read from a file, whose overlap
            already holds the overrides.
        overlap: `--training` and `--new`: class name → whether the model was trained on it.
    """

    source: ClassList | Vocabulary
    overlap: dict[str, bool]

    def vocabulary(self, maker: Maker, progress: Progress | None = None, bank: PromptBank | None = None) -> Vocabulary:
        """The vocabulary: encoded by `maker`, or the one from the file once it is known to fit the maker's bundle."""
        if isinstance(self.source, Vocabulary):
            return maker.check(self.source)
        return maker.vocabulary(self.source, self.overlap, progress, bank)


def classes_options(command: F) -> F:
    """Adds --classes, --file, --dataset, --training and --new; the values go to `resolve_classes` by these names."""
    options = (
        click.option("--classes", metavar="NAMES", help="Class names, separated by commas; or a dataset's name."),
        click.option("--file", type=click.Path(path_type=Path), help="Text file: one class per line, taken whole."),
        click.option("--dataset", metavar="NAME", help=f"Classes of a dataset: {', '.join(DATASETS)}."),
        click.option("--training", multiple=True, metavar="NAMES", help="Treat these classes as seen in training."),
        click.option("--new", multiple=True, metavar="NAMES", help="Treat these classes as not seen in training."),
    )
    return _with(options, command)


def engine_options(command: F) -> F:
    """Adds --backend, --precision and --device: which of a bundle's engines run, and where."""
    backend, precision = "the best one that has engines for this machine", "the best one there is for the backend"
    options = (
        click.option("--backend", metavar="NAME", help=f"Default: {backend}."),
        click.option("--precision", metavar="NAME", help=f"Default: {precision}."),
        click.option("--device", type=int, default=0, show_default=True, help="Index of the GPU."),
    )
    return _with(options, command)


def _with(options: Sequence[Callable[[F], F]], command: F) -> F:
    for option in reversed(options):
        command = option(command)
    return command


def vocabulary_option(command: F) -> F:
    """Adds --vocabulary, a file that `edgeseg vocab` wrote; stands above `classes_options`."""
    help_text = "Vocabulary file written by `edgeseg vocab`; no text encoder runs."
    return click.option("--vocabulary", type=click.Path(path_type=Path), metavar="FILE", help=help_text)(command)


def resolve_classes(
    classes: str | ClassList | None = None,
    file: Path | None = None,
    dataset: str | None = None,
    *,
    vocabulary: Path | None = None,
    training: Sequence[str] = (),
    new: Sequence[str] = (),
) -> ClassRequest:
    """The options of `classes_options` and `vocabulary_option` as one value. Exactly one source of names is needed."""
    given = {"--classes": classes, "--file": file, "--dataset": dataset, "--vocabulary": vocabulary}
    used = [name for name, value in given.items() if value is not None]
    if len(used) != 1:
        found = f"{' and '.join(used)} are given together" if used else "no option names any class"
        raise InputError("know which classes to use", found, _HINT)
    source = _read_source(classes, file, dataset, vocabulary)
    overlap = {name: True for name in _split_known(training, source.names, "--training")}
    both = [name for name in _split_known(new, source.names, "--new") if overlap.setdefault(name, False)]
    if both:
        raise InputError("use --training and --new", f"{both[0]!r} is in both", "name it in one of them")
    return ClassRequest(_overridden(source, overlap), overlap)


def parse_settings(values: Sequence[str]) -> dict[str, str]:
    """`--set NAME=VALUE` options as a mapping; the family reads the values. Raises InputError."""
    made: dict[str, str] = {}
    for value in values:
        name, sign, text = value.partition("=")
        if not sign or not name.strip():
            raise InputError(f"use --set {value}", "it is not NAME=VALUE", "write it like --set rounds=2")
        made[name.strip()] = text.strip()
    return made


def _read_source(
    classes: str | ClassList | None, file: Path | None, dataset: str | None, vocabulary: Path | None
) -> ClassList | Vocabulary:
    if vocabulary is not None:
        return Vocabulary.load(vocabulary)
    if file is not None:
        return read_class_file(file)
    return dataset_classes(dataset) if dataset is not None else class_list(classes or "")


def _overridden(source: ClassList | Vocabulary, overlap: Mapping[str, bool]) -> ClassList | Vocabulary:
    return source.with_overlap(overlap) if isinstance(source, Vocabulary) else source


def _split_known(values: Sequence[str], names: Sequence[str], option: str) -> list[str]:
    """Names in option values: a value that is a class is taken whole (names may hold commas), else it is a list."""
    found: list[str] = []
    for value in values:
        found += [value.strip()] if value.strip() in names else [part.strip() for part in value.split(",")]
    unknown = [name for name in found if name not in names]
    if unknown:
        raise InputError(f"use {option}", f"{unknown[0]!r} is none of the classes", "spell it as in the class list")
    return found
