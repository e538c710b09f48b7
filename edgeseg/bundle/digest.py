"""Digests of files, computed once per process for each file that does not change."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from edgeseg.errors import BundleError
from edgeseg.schema import FileSpec

Advance = Callable[[int], None]  # told the number of bytes done since the last call

CHUNK_BYTES = 4 << 20

_Identity = tuple[int, int, int, int]
_KNOWN: dict[_Identity, str] = {}


def digest(path: Path, advance: Advance | None = None) -> FileSpec:
    """A file's sha256 and length; its content is read only if this process has not done so since it last changed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with open(descriptor, "rb", buffering=0) as file:
        before = os.fstat(descriptor)
        known = _KNOWN.get(_identity(before))
        if known is None:
            known = _read(file.readinto, advance)
            if _identity(os.fstat(descriptor)) != _identity(before):
                raise BundleError(f"read {path}", "it changes while it is read", "wait until it is complete")
            _KNOWN[_identity(before)] = known
        elif advance:
            advance(before.st_size)
    return FileSpec(known, before.st_size)


def copy(source: Path, target: Path, advance: Advance | None = None) -> FileSpec:
    """Copies a file and returns the digest of what was copied; `target` is new."""
    sha, buffer = hashlib.sha256(), memoryview(bytearray(CHUNK_BYTES))
    with open(source, "rb", buffering=0) as reader, open(target, "xb", buffering=0) as writer:
        while count := reader.readinto(buffer):
            sha.update(buffer[:count])
            done = 0
            while done < count:
                done += writer.write(buffer[done:count])
            if advance:
                advance(count)
    status = target.stat()
    _KNOWN[_identity(status)] = sha.hexdigest()
    return FileSpec(sha.hexdigest(), status.st_size)


def _read(readinto: Callable[[memoryview], int | None], advance: Advance | None) -> str:
    sha, buffer = hashlib.sha256(), memoryview(bytearray(CHUNK_BYTES))
    while count := readinto(buffer):
        sha.update(buffer[:count])
        if advance:
            advance(count)
    return sha.hexdigest()


def _identity(status: os.stat_result) -> _Identity:
    """A change of content changes one of these, a renaming none; so a file moved into place is not read again."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
