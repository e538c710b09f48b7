"""What trials found so far, photo by photo, on the disk: an interrupted study goes on and ends as if it had not been.

Only whole photos are kept, as whole numbers and as sums of them in a fixed order, so where it was cut makes no
difference.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from edgeseg.atomic import atomic_write

SAVE_S = 20.0  # how much work an interruption may cost

Row = dict[str, Any]


class Ledger:
    """Rows of trials by the trials' names.

    Args:
        path: the file; one of another key, or a damaged one, counts as none.
        key: names all that the rows depend on.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key, self._saved = path, key, time.monotonic()
        self._rows: dict[str, list[Row]] = _load(path, key)
        self.resumed = bool(self._rows)

    def rows(self, name: str) -> list[Row]:
        """The rows of a trial, in order."""
        return self._rows.setdefault(name, [])

    def add(self, name: str, row: Row) -> None:
        """One more row, written at the latest after `SAVE_S`."""
        self.rows(name).append(row)
        if time.monotonic() - self._saved > SAVE_S:
            self.save()

    def save(self) -> None:
        """Write the file. Raises StorageError."""
        text = json.dumps({"key": self._key, "rows": self._rows}, allow_nan=False)
        with atomic_write(self._path) as temporary:
            temporary.write_text(text, "utf-8")
        self._saved = time.monotonic()


def _load(path: Path, key: str) -> dict[str, list[Row]]:
    try:
        kept = json.loads(path.read_bytes())
        return dict(kept["rows"]) if kept["key"] == key else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
