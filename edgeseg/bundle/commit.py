"""The moment an edit takes effect: staged files move into place, and `bundle.json` is replaced last.

An edit works in `.stage-*/` inside the bundle, under the bundle's lock, with `new/` for what it wrote and `old/` for
what it replaces. Before the first file moves, the new manifest is written to `.stage-*/bundle.json`:

1. While that file is there, the edit has not taken effect, and `roll_back` restores every file from what it and the
   bundle's own manifest list.
2. Its renaming to `bundle.json` is the moment.
3. After that, the stage is waste.

So a process that is killed at any point leaves the old bundle or the new one, and `recover` finds out which.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from edgeseg.atomic import fsync
from edgeseg.bundle.paths import MANIFEST, STAGE, prepare, present, prune
from edgeseg.bundle.read import read_manifest, write_manifest
from edgeseg.errors import BundleError
from edgeseg.schema import Manifest

NEW, OLD, SCRATCH = "new", "old", "scratch"


def make_stage(root: Path) -> Path:
    """An empty stage in the bundle `root`, whose lock is held."""
    stage = root / f"{STAGE}{secrets.token_hex(4)}"
    for folder in (stage, stage / NEW, stage / OLD, stage / SCRATCH):
        folder.mkdir()
    return stage


def commit(root: Path, stage: Path, before: Manifest, after: Manifest) -> None:
    """Makes `after` the bundle's manifest, and moves the files that the stage holds into place; all or nothing."""
    moved = sorted(path for path in after.files if present(stage / NEW, path))
    gone = sorted(path for path in before.files if path not in after.files)
    for path in moved:
        if path not in before.files and present(root, path):
            raise BundleError(f"write {path}", "a file that bundle.json does not list is in its place", "move it away")
    _sync(stage / NEW, moved)
    try:
        _write_pending(stage, after)
        for path in moved + gone:
            if present(root, path):
                os.replace(root / path, prepare(stage / OLD, path))
        for path in moved:
            os.replace(stage / NEW / path, prepare(root, path))
        _sync_folders(root, moved + gone)
        os.replace(stage / MANIFEST, root / MANIFEST)
        fsync(root)
    except BaseException:
        roll_back(root, stage)
        raise
    for path in gone:
        prune(root, path)


def roll_back(root: Path, stage: Path) -> None:
    """Undoes what `commit` did so far, unless it took effect. May itself be interrupted, and done again."""
    if not (stage / MANIFEST).is_file():
        return
    before, after = read_manifest(root), read_manifest(stage)
    for path in after.files:
        if path not in before.files and not present(stage / NEW, path):
            prepare(root, path).unlink(missing_ok=True)
            prune(root, path)
    for path in before.files:
        if present(stage / OLD, path):
            os.replace(stage / OLD / path, prepare(root, path))
    _sync_folders(root, list(before.files))
    (stage / MANIFEST).unlink()


def discard(stage: Path) -> None:
    """Removes a stage, unless it is still needed to restore files."""
    if not (stage / MANIFEST).exists():
        shutil.rmtree(stage, ignore_errors=True)


def stages(root: Path) -> list[Path]:
    """Stages in the bundle. Whoever holds the lock may take them all for those of dead processes."""
    with os.scandir(root) as entries:
        names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    return [root / name for name in names if name.startswith(STAGE)]


def interrupted(root: Path) -> bool:
    """Whether an edit is just taking effect, or was killed while it did."""
    return any((stage / MANIFEST).is_file() for stage in stages(root))


def recover(root: Path) -> None:
    """Brings a bundle, whose lock is held, to the state before the edits that were killed."""
    for stage in stages(root):
        roll_back(root, stage)
        discard(stage)


def _write_pending(stage: Path, manifest: Manifest) -> None:
    temporary = stage / f"{MANIFEST}.tmp"
    write_manifest(temporary, manifest)
    fsync(temporary)
    os.replace(temporary, stage / MANIFEST)
    fsync(stage)


def _sync(folder: Path, paths: list[str]) -> None:
    for path in paths:
        fsync(folder / path)


def _sync_folders(root: Path, paths: list[str]) -> None:
    for folder in {(root / path).parent for path in paths}:
        while not folder.is_dir():
            folder = folder.parent
        fsync(folder)
