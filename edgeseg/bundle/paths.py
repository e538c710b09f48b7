"""Paths inside a bundle: which names are allowed, and that what they name is a plain file that lies inside."""

from __future__ import annotations

import re
import stat
from pathlib import Path

from edgeseg.errors import BundleError

MANIFEST = "bundle.json"
TOKENIZER = "tokenizer.json"
LOCK = ".lock"
STAGE = ".stage-"

UNDAMAGED = "get an undamaged copy of the bundle, or make it again"

_LENGTH = 255
_PART = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]*")


def check_relative(relative: str) -> str:
    """The path itself, if its parts are letters, digits and `._+-` and none begins with a dot; else a BundleError.

    That leaves no way to write an absolute path, `..`, a backslash, a drive letter, NUL, or two spellings of one name.
    """
    parts = relative.split("/")
    if len(relative) > _LENGTH or relative == MANIFEST or not all(_PART.fullmatch(part) for part in parts):
        shown = ascii(relative[:_LENGTH])
        raise BundleError(f"use the bundle's file {shown}", "this is no path of a file inside a bundle", UNDAMAGED)
    return relative


def contained(root: Path, relative: str) -> Path:
    """The path of a file of the bundle `root`, which is there, is a plain file, and is reached without links."""
    path = _walk(root, check_relative(relative))
    if path is None:
        raise BundleError(f"use the bundle's file {relative}", "it is missing", UNDAMAGED)
    return path


def present(root: Path, relative: str) -> bool:
    """Whether the bundle `root` has such a file; a BundleError if something that is no plain file has its name."""
    return _walk(root, check_relative(relative)) is not None


def prepare(root: Path, relative: str) -> Path:
    """The path of a file to be written, after its folders were made; none of them is a link."""
    present(root, relative)
    path = root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def prune(root: Path, relative: str) -> None:
    """Removes the folders above a path that are empty, but not the bundle itself."""
    for folder in (root / relative).parents:
        if folder == root or not folder.is_dir() or any(folder.iterdir()):
            return
        folder.rmdir()


def listing(root: Path) -> list[str]:
    """Every file and link under the bundle but `bundle.json`, the lock, and what an interrupted edit left."""
    found = []
    for path in root.iterdir():
        if path.name in (MANIFEST, LOCK) or path.name.startswith(STAGE):
            continue
        deep = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
        found += [entry.relative_to(root).as_posix() for entry in deep if entry.is_symlink() or not entry.is_dir()]
    return sorted(found)


def _walk(root: Path, relative: str) -> Path | None:
    """The path if there is a plain file; None if it or a folder above it is missing."""
    path, parts = root, relative.split("/")
    for depth, part in enumerate(parts, 1):
        path = path / part
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            return None
        expected = stat.S_ISREG(mode) if depth == len(parts) else stat.S_ISDIR(mode)
        if not expected:
            kind = "a link" if stat.S_ISLNK(mode) else "no plain file" if depth == len(parts) else "no folder"
            found = f"{'/'.join(parts[:depth])} is {kind}"
            raise BundleError(f"use the bundle's file {relative}", found, UNDAMAGED)
    return path
