"""What can go wrong, and the exit code of each.

    EdgesegError                 1   something failed that no class below names
    ├── InputError               3   an image, a class list or an option's value cannot be used
    ├── CheckpointError          4   a checkpoint is damaged, hostile, or of another model
    ├── BundleError              5   a bundle is damaged, hostile, or lacks what was asked for
    ├── BackendError             6   an engine SDK or its device does not work here
    ├── BuildError               7   a compiler refused a graph, or a build was asked for that cannot be
    ├── GateError                8   an engine or a graph does not give the reference results
    ├── StorageError             9   the disk is full, or a file cannot be written or locked
    └── DownloadError           10   a published file cannot be fetched, or is not the published one

A command line that click cannot parse exits with 2, an interrupt (Ctrl-C) with 130. `docs/exit-codes.md` is this
table for users; a test holds the two together.

Every error has three parts: what was asked, what was found, what to do. They are joined into one line.
"""

from __future__ import annotations


class EdgesegError(Exception):
    """An error that a user can act on.

    Args:
        asked: what the user or the caller wanted ("read the checkpoint a.pth").
        found: what is the case instead ("it ends after 12 of 600 MB").
        todo: what to do about it ("download it again").
    """

    exit_code = 1

    def __init__(self, asked: str, found: str, todo: str) -> None:
        self.asked, self.found, self.todo = (" ".join(part.split()) for part in (asked, found, todo))
        super().__init__(f"cannot {self.asked}: {self.found}; {self.todo}")

    def __reduce__(self) -> tuple[type[EdgesegError], tuple[str, str, str]]:
        """Its three parts, so that it can come from another process."""
        return type(self), (self.asked, self.found, self.todo)


class InputError(EdgesegError):
    """An image, a class list or an option's value cannot be used."""

    exit_code = 3


class CheckpointError(EdgesegError):
    """A checkpoint is damaged, hostile, or of another model."""

    exit_code = 4


class BundleError(EdgesegError):
    """A bundle is damaged, hostile, or lacks what was asked for."""

    exit_code = 5


class BackendError(EdgesegError):
    """An engine SDK or its device does not work here."""

    exit_code = 6


class BuildError(EdgesegError):
    """A compiler refused a graph, or a build was asked for that cannot be."""

    exit_code = 7


class GateError(EdgesegError):
    """An engine or a graph does not give the reference results."""

    exit_code = 8


class StorageError(EdgesegError):
    """The disk is full, or a file cannot be written or locked."""

    exit_code = 9


class DownloadError(EdgesegError):
    """A published file cannot be fetched, or is not the published one."""

    exit_code = 10


INTERRUPTED = 130
