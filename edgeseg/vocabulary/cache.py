"""Embeddings of class names on disk, so that a name is encoded once per text encoder and set of templates.

The cache is an SQLite file that several processes may use at once. It only saves time: where it cannot be used, work
goes on without it, and what it holds is checked each time. A damaged file is set aside under another name.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
T = TypeVar("T")

LOG = logging.getLogger("edgeseg")
FILE = "vocabulary.sqlite"
LAYOUT = 1  # PRAGMA user_version; a file of another layout is set aside like a damaged one

_TABLE = "CREATE TABLE embeddings (encoder TEXT, name TEXT, vector BLOB NOT NULL, PRIMARY KEY (encoder, name))"
_WAIT_S = 10.0


def cache_directory() -> Path | None:
    """The user's cache directory for edgeseg; None where there is no home.

    `EDGESEG_CACHE` names it, else it is `edgeseg` in `XDG_CACHE_HOME`, in the platform's place, or in `~/.cache`.
    """
    if os.environ.get("EDGESEG_CACHE"):
        return Path(os.environ["EDGESEG_CACHE"])
    for variable in ("XDG_CACHE_HOME", *(("LOCALAPPDATA",) if sys.platform == "win32" else ())):
        if os.path.isabs(os.environ.get(variable, "")):  # the XDG rules: a relative path counts as unset
            return Path(os.environ[variable]) / "edgeseg"
    try:
        return Path.home() / ".cache" / "edgeseg"
    except RuntimeError:
        return None


class EmbeddingCache:
    """Unit vectors by text encoder and class name.

    Args:
        directory: where the file is; None keeps nothing. Default: `cache_directory()`.
    """

    def __init__(self, directory: Path | None) -> None:
        self._path = None if directory is None else directory / FILE

    @classmethod
    def default(cls) -> EmbeddingCache:
        """The user's cache."""
        return cls(cache_directory())

    def get(self, encoder: str, names: Sequence[str], dimensions: int) -> dict[str, Float32]:
        """The vectors (D,) float32 that are there, of the given names.

        Args:
            encoder: fingerprint of weights, tokenizer and templates.
            names: class names.
            dimensions: D; a vector of another length means that the file is damaged.
        """

        def read(connection: sqlite3.Connection) -> dict[str, Float32]:
            query = "SELECT vector FROM embeddings WHERE encoder = ? AND name = ?"
            rows = ((name, connection.execute(query, (encoder, name)).fetchone()) for name in names)
            return {name: _checked_vector(row[0], dimensions) for name, row in rows if row is not None}

        return self._use(read) or {}

    def put(self, encoder: str, vectors: Mapping[str, Float32]) -> None:
        """Keep unit vectors (D,) by class name."""

        def write(connection: sqlite3.Connection) -> None:
            rows = [(encoder, name, vector.astype("<f4").tobytes()) for name, vector in vectors.items()]
            connection.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)", rows)

        self._use(write)

    def _use(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """`work` on the open file; None where it cannot be used. Once a damaged file is set aside, it runs again."""
        for _ in range(2):
            if self._path is None:
                return None
            try:
                with closing(_connect(self._path)) as connection, connection:
                    return work(connection)
            except (sqlite3.OperationalError, OSError) as error:
                self._give_up(str(error))
            except (sqlite3.Error, _DamagedError) as error:
                self._set_aside(str(error))
        return None

    def _give_up(self, reason: str) -> None:
        LOG.warning("class names are not cached: %s: %s", self._path, reason)
        self._path = None

    def _set_aside(self, reason: str) -> None:
        assert self._path is not None
        aside = self._path.with_name(f"{FILE}.damaged-{time.time_ns()}")
        try:
            self._path.replace(aside)
        except FileNotFoundError:
            return  # another process was faster
        except OSError as error:
            self._give_up(f"it is damaged ({reason}) and cannot be set aside ({error})")
            return
        LOG.warning("the cache of class names was damaged (%s); it is now %s, and a new one is begun", reason, aside)


class _DamagedError(Exception):
    """The file opens as SQLite but does not hold what it should."""


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=_WAIT_S)
    try:
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA user_version").fetchone()[0] != LAYOUT:
        connection.execute("BEGIN IMMEDIATE")  # two processes that begin a file at once: the second waits, then sees it
        _begin_file(connection)
        connection.commit()
    columns = [row[1:3] for row in connection.execute("PRAGMA table_info(embeddings)")]
    if columns != [("encoder", "TEXT"), ("name", "TEXT"), ("vector", "BLOB")]:
        raise _DamagedError("its table is not as documented")


def _begin_file(connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA user_version").fetchone()[0] == LAYOUT:
        return
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise _DamagedError("it has another layout")
    connection.execute(_TABLE)
    connection.execute(f"PRAGMA user_version = {LAYOUT}")


def _checked_vector(blob: object, dimensions: int) -> Float32:
    if not isinstance(blob, bytes) or len(blob) != 4 * dimensions:
        raise _DamagedError(f"a vector is not {4 * dimensions} bytes long")
    vector = np.frombuffer(blob, "<f4").astype(np.float32)
    if not abs(float(np.linalg.norm(vector.astype(np.float64))) - 1) < 1e-3:  # not a number fails too
        raise _DamagedError("a vector is not of length 1")
    return vector
