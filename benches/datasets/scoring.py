"""Which classes a data set scores, and which prompts are asked for; for most of them the two are the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeseg.errors import InputError
from edgeseg.vocabulary.classes import ClassList, dataset_classes, read_class_file

BACKGROUND = "background"


@dataclass(frozen=True)
class Scoring:
    """The classes of a data set.

    Attributes:
        classes: C classes that are scored, in the order of the labels.
        prompts: P class names for the text encoder, in any order.
        prompt_classes: (P,) which class a prompt belongs to.
        background: index of the class that stands for everything unnamed; None if there is none.
    """

    classes: ClassList
    prompts: ClassList
    prompt_classes: tuple[int, ...]
    background: int | None = None


def same(classes: ClassList, background: int | None = None) -> Scoring:
    """Every class is one prompt."""
    return Scoring(classes, classes, tuple(range(len(classes.names))), background)


def plain(_: Path, name: str) -> Scoring:
    """The classes of a data set that edgeseg knows."""
    return same(dataset_classes(name))


def with_background(_: Path, name: str, count: int | None = None) -> Scoring:
    """Class 0 is the background, prompted by this word; behind it the first `count` classes of a data set, or all."""
    classes = part(dataset_classes(name), range(count) if count else None)
    return same(joined(ClassList((BACKGROUND,), ((BACKGROUND,),)), classes), 0)


def voc_with_context(_: Path) -> Scoring:
    """PAS-20b, CAT-Seg's rule: VOC's 20 classes; all that is labelled as another class of Pascal Context is class 20.

    The prompts are Pascal Context's 59 names, VOC's in front.
    """
    voc, context = dataset_classes("voc-20"), dataset_classes("pascal-context-59")
    pairs = zip(voc.names, voc.synonyms, strict=True)  # "tv" is "tvmonitor" there, the first of its synonyms
    first = [context.names.index(name if name in context.names else synonyms[0]) for name, synonyms in pairs]
    rest = [index for index in range(len(context.names)) if index not in first]
    prompts = part(context, [*first, *rest])
    classes = joined(voc, ClassList((BACKGROUND,), ((BACKGROUND,),)))
    return Scoring(classes, prompts, tuple(min(index, len(first)) for index in range(len(prompts.names))), len(first))


def from_file(root: Path) -> Scoring:
    """The classes in `classes.txt` of a user's folder, one a line, in the order of the labels."""
    return same(read_class_file(root / "classes.txt"))


def unlabelled(root: Path) -> Scoring:
    """The classes in `classes.txt` where it exists; else none."""
    return from_file(root) if (root / "classes.txt").exists() else same(ClassList((), ()))


def part(classes: ClassList, indices: range | list[int] | None) -> ClassList:
    """Some of the classes, in the order of `indices`; None takes all."""
    chosen = range(len(classes.names)) if indices is None else indices
    return ClassList(tuple(classes.names[i] for i in chosen), tuple(classes.synonyms[i] for i in chosen))


def joined(first: ClassList, second: ClassList) -> ClassList:
    """One list behind the other. Raises InputError if a name is in both."""
    both = set(first.names) & set(second.names)
    if both:
        raise InputError("join two class lists", f"{min(both)!r} is in both", "name each class once")
    return ClassList(first.names + second.names, first.synonyms + second.synonyms)
