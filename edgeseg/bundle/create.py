"""Puts a new bundle in its place in one step, or in the place of an old one so that a crash leaves one of the two.

A bundle is made in `.NAME.new-*/` beside its place. To replace an old one, that is renamed to `.NAME.old-*` first; if
the process is killed just then, the next use finds the old bundle there and takes it back.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeseg.atomic import FileLock, fsync, storage_errors
from edgeseg.bundle.commit import NEW, SCRATCH
from edgeseg.bundle.edit import BundleEdit
from edgeseg.bundle.paths import LOCK, MANIFEST, prepare
from edgeseg.bundle.read import write_manifest
from edgeseg.errors import BundleError, StorageError
from edgeseg.schema import Manifest


@contextmanager
def creating(path: Path, manifest: Manifest, overwrite: bool) -> Iterator[BundleEdit]:
    """Yields an edit of a new bundle, which appears at `path` at the end. Raises BundleError, StorageError."""
    asked = f"make the bundle {path}"
    if not path.parent.is_dir():
        raise StorageError(asked, f"there is no folder {path.parent}", "create it first")
    restore(path)
    _check_free(path, overwrite)
    with storage_errors(asked), _workplace(path, asked) as work:
        edit = BundleEdit(manifest, work)
        yield edit
        built = _assemble(work, edit.finish())
        _place(built, path, overwrite)


def restore(path: Path) -> None:
    """Takes back an old bundle that a killed process had moved aside, if its place is still empty."""
    for old in [] if os.path.lexists(path) else _beside(path, "old"):
        if (old / MANIFEST).is_file():
            with FileLock(old / LOCK, f"restore the bundle {path}"):
                if old.is_dir() and not os.path.lexists(path):
                    os.rename(old, path)
            return


def _check_free(path: Path, overwrite: bool) -> None:
    asked = f"make the bundle {path}"
    if not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / MANIFEST).is_file():
        raise BundleError(asked, "something that is no bundle is there", "move it away, or choose another place")
    if not overwrite:
        raise BundleError(asked, "a bundle is there already", "choose another place, or say --overwrite")


@contextmanager
def _workplace(path: Path, asked: str) -> Iterator[Path]:
    """A locked folder beside `path`; those that killed processes left are removed."""
    for left in [*_beside(path, "new"), *(_beside(path, "old") if path.exists() else [])]:
        _remove_if_dead(left)
    work = path.with_name(f".{path.name}.new-{secrets.token_hex(4)}")
    work.mkdir()
    try:
        with FileLock(work / LOCK, asked):
            (work / NEW).mkdir()
            (work / SCRATCH).mkdir()
            yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _remove_if_dead(left: Path) -> None:
    try:
        with FileLock(left / LOCK, "remove it", wait=False):
            shutil.rmtree(left, ignore_errors=True)
    except StorageError:
        return  # its owner is alive, or it belongs to another user


def _assemble(work: Path, manifest: Manifest) -> Path:
    """Moves the staged files, and nothing else, to a folder of their own, with the manifest."""
    built = work / "bundle"
    built.mkdir()
    for relative in manifest.files:
        fsync(work / NEW / relative)
        os.rename(work / NEW / relative, prepare(built, relative))
    write_manifest(built / MANIFEST, manifest)
    fsync(built / MANIFEST)
    for folder in (*(path for path in built.rglob("*") if path.is_dir()), built):
        fsync(folder)
    return built


def _place(built: Path, path: Path, overwrite: bool) -> None:
    if not overwrite or not (path / MANIFEST).is_file():
        _check_free(path, overwrite)  # again: it may have come while this one was made
        os.rename(built, path)
    else:
        with FileLock(path / LOCK, f"replace the bundle {path}"):
            _swap(built, path)
    fsync(path.parent)


def _swap(built: Path, path: Path) -> None:
    old = path.with_name(f".{path.name}.old-{secrets.token_hex(4)}")
    try:
        os.rename(path, old)
        os.rename(built, path)
    except BaseException:
        if old.exists() and not path.exists():
            os.rename(old, path)
        raise
    finally:
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)


def _beside(path: Path, kind: str) -> list[Path]:
    if not path.parent.is_dir():
        return []
    prefix = f".{path.name}.{kind}-"
    named = (entry for entry in path.parent.iterdir() if entry.name.startswith(prefix))
    return [entry for entry in named if entry.is_dir() and not entry.is_symlink()]
