"""Where a data set's files are: one form in which it is published or in which others have prepared it.

A key names an image: its path below the image folder, without the suffix. Nothing is read here but folders and lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeseg.errors import InputError

from .label_map import LabelMap
from .readers import Reader, read_numbers

_SHOWN = 3


@dataclass(frozen=True)
class Item:
    """One image of a data set; nothing has been read yet.

    Attributes:
        key: its name in the data set.
        image: its file.
        labels: its label file; None in a folder of images without labels.
    """

    key: str
    image: Path
    labels: Path | None


@dataclass(frozen=True)
class Layout:
    """A form on disk. Folders may hold `{split}` and are relative to the root.

    Attributes:
        name: what it is called in a result.
        images: folder of the images. `suffixes`: their endings.
        labels: folder of the label files; None where there are none. `ending`: what follows the key in their names.
        values: what the numbers in them mean; None counts the classes from 0 and ignores 65535, and 255 where there are
            at most 255 classes.
        read: reads a label file.
        lists: files that list the keys of a split, one a line; the first that exists counts. Without any, every
            image is one of the set.
        skip: ending of further files beside the labels, which a preparation has put there.
        by_labels: every label file is one of the set, and images without one are not: some preparations write none
            for an image of which nothing is scored.
        short_side: larger images are made so small before anything else, as the authors of this form did.
    """

    name: str
    images: str
    labels: str | None
    ending: str
    values: LabelMap | None
    read: Reader = read_numbers
    suffixes: tuple[str, ...] = (".jpg", ".jpeg", ".png")
    lists: tuple[str, ...] = ()
    skip: str | None = None
    by_labels: bool = False
    short_side: int | None = None

    def is_at(self, root: Path, split: str) -> bool:
        """Whether a root has this form, for this split."""
        if self.labels is None:
            return place(root, self.images, split).is_dir()
        labels = place(root, self.labels, split)
        return place(root, self.images, split).is_dir() and any(_files(labels, self._is_label))

    def items(self, root: Path, split: str) -> tuple[Item, ...]:
        """Every image of the split, by key.

        Raises:
            InputError: there is none, or images and labels do not belong together one to one.
        """
        asked = f"read the data set in {root}"
        images, labels = self._images(asked, root, split), self._labels(root, split)
        keys = self._keys(asked, root, split, images, labels)
        _complete(asked, "image", [key for key in keys if key not in images])
        if self.labels is None:
            return tuple(Item(key, images[key], None) for key in keys)
        _complete(asked, "label file", [key for key in keys if key not in labels])
        return tuple(Item(key, images[key], labels[key]) for key in keys)

    def describe(self, split: str) -> str:
        """The folders, for a message."""
        wanted = [self.images, *([f"{self.labels}/*{self.ending}"] if self.labels else [])]
        return " with ".join(part.replace("{split}", split or ".").removeprefix("./") for part in wanted)

    def _is_label(self, file: Path) -> bool:
        return file.name.endswith(self.ending) and not (self.skip and file.name.endswith(self.skip))

    def _images(self, asked: str, root: Path, split: str) -> dict[str, Path]:
        folder = place(root, self.images, split)
        found: dict[str, Path] = {}
        for file in sorted(_files(folder, lambda file: file.suffix.lower() in self.suffixes)):
            key = file.relative_to(folder).with_suffix("").as_posix()
            if key in found:
                todo = "keep one of them"
                raise InputError(asked, f"{found[key].name} and {file.name} are both the image {key}", todo)
            found[key] = file
        return found

    def _labels(self, root: Path, split: str) -> dict[str, Path]:
        if self.labels is None:
            return {}
        folder = place(root, self.labels, split)
        files = _files(folder, self._is_label)
        return {file.relative_to(folder).as_posix().removesuffix(self.ending): file for file in files}

    def _keys(self, asked: str, root: Path, split: str, images: dict[str, Path], labels: dict[str, Path]) -> list[str]:
        if self.lists:
            return _listed(asked, [place(root, name, split) for name in self.lists])
        keys = sorted(labels) if self.by_labels else sorted({*images, *labels})
        if not keys:
            raise InputError(asked, f"{self.describe(split)} holds no image", "give the folder that holds the data set")
        return keys


def place(root: Path, template: str, split: str) -> Path:
    """A folder or file of a layout; an empty split leaves its part out."""
    return root.joinpath(*filter(None, template.replace("{split}", split).split("/")))


def _files(folder: Path, wanted: Callable[[Path], bool]) -> Iterator[Path]:
    return (file for file in folder.rglob("*") if wanted(file) and file.is_file() and not file.name.startswith("."))


def _listed(asked: str, candidates: Sequence[Path]) -> list[str]:
    """The keys in the first list that exists: the first word of each line."""
    file = next((path for path in candidates if path.is_file()), None)
    if file is None:
        raise InputError(asked, f"it has no list of its images: {' or '.join(map(str, candidates))}", "add the list")
    try:
        words = [line.split()[0] for line in file.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(asked, f"the list {file} cannot be read ({error})", "get an undamaged copy") from None
    twice = sorted({word for word in words if words.count(word) > 1}) if len(set(words)) < len(words) else []
    if twice or not words:
        found = f"the list {file} names {twice[0]} twice" if twice else f"the list {file} is empty"
        raise InputError(asked, found, "get an undamaged copy")
    return sorted(words)


def _complete(asked: str, what: str, missing: Sequence[str]) -> None:
    if missing:
        names = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        found = f"{len(missing)} of its images have no {what}: {names}"
        raise InputError(asked, found, "complete the data set; edgeseg does not score a part of it in silence")
