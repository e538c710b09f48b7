"""Writing files so that a full disk, Ctrl-C or a crash leaves the earlier ones intact, and locks between processes.

Imports nothing but the standard library and `edgeseg.errors`.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeseg.errors import StorageError

LOG = logging.getLogger("edgeseg")

# What the operating system may answer to a write → (what was found, what to do).
_REASONS = {
    errno.ENOSPC: ("the disk is full", "free some space, or write to another disk"),
    errno.EDQUOT: ("your disk quota is used up", "free some space, or write to another disk"),
    errno.EFBIG: ("the file would be larger than the file system allows", "write to another disk"),
    errno.EROFS: ("the file system is read-only", "write to another disk"),
    errno.EACCES: ("permission is denied", "change the permissions, or write elsewhere"),
    errno.EPERM: ("permission is denied", "change the permissions, or write elsewhere"),
    errno.ELOOP: ("a link is where a file should be", "remove the link"),
    errno.EISDIR: ("a folder is where a file should be", "move it away"),
    errno.ENAMETOOLONG: ("the file's name is too long", "choose a shorter one"),
    errno.EIO: ("the disk reports an error", "check the disk, or write to another one"),
}


@contextmanager
def storage_errors(asked: str) -> Iterator[None]:
    """Turns an OSError that is about the disk, its names or permissions into a StorageError; any other error passes."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REASONS:
            raise
        found, todo = _REASONS[error.errno]
        where = f" ({error.filename})" if error.filename else ""
        raise StorageError(asked, found + where, todo) from error


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path to write; at the end it takes the place of `path`, and after an error it is removed.

    Raises:
        StorageError: the disk is full, or the place cannot be written.
    """
    target, asked = Path(os.path.realpath(path)), f"write {path}"
    if not target.parent.is_dir():
        raise StorageError(asked, f"there is no folder {target.parent}", "create it first")
    if target.exists() and not target.is_file():
        raise StorageError(asked, "something that is no file has this name", "choose another name")
    temporary = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.tmp")
    try:
        with storage_errors(asked):
            yield temporary
            fsync(temporary)
            os.replace(temporary, target)
            fsync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def fsync(path: Path) -> None:
    """Waits until a file, or the entries of a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot sync a directory
            raise
    finally:
        os.close(descriptor)


class FileLock:
    """Holds a file locked, against other processes and other threads, while inside the `with` block.

    The operating system lets go of the lock when the process ends, however it ends, so a lock is never stale.

    Args:
        path: the lock file; made if missing, and left there.
        asked: what the lock is for, as in "change the bundle a.bundle".
        wait: wait for another holder, after saying so; if False, raise a StorageError at once.
    """

    _held: dict[tuple[int, int], int] = {}  # noqa: RUF012 - shared by all locks of the process on purpose

    def __init__(self, path: Path, asked: str, wait: bool = True) -> None:
        self._path, self._asked, self._wait = path, asked, wait
        self._descriptor = -1

    def __enter__(self) -> FileLock:
        with storage_errors(self._asked):
            while self._descriptor < 0:
                self._descriptor = self._acquire()
        self._held[_identity(os.fstat(self._descriptor))] = threading.get_ident()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.pop(_identity(os.fstat(self._descriptor)), None)
        os.close(self._descriptor)
        self._descriptor = -1

    def _acquire(self) -> int:
        """A locked descriptor; -1 if the file was replaced while this waited for it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            self._lock(descriptor)
            if _identity(os.fstat(descriptor)) == _identity(os.lstat(self._path)):
                return descriptor
        except FileNotFoundError:
            pass  # the file was removed meanwhile: make it again
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return -1

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if self._held.get(_identity(os.fstat(descriptor))) == threading.get_ident():
                raise RuntimeError(f"{self._path} is already locked by this thread") from None
        if not self._wait:
            raise StorageError(self._asked, "another process is changing it", "try again when that one is done")
        LOG.warning("cannot %s yet: another process is changing it; waiting until that one is done", self._asked)
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
