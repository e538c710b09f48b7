"""What a run has counted so far, in a file, so that a run that was cut short goes on where it was.

The file says what it belongs to: engines, classes, images, options, versions. A run of anything else does not touch it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import edgeseg
from edgeseg.atomic import atomic_write
from edgeseg.bundle.arrays import read_npz
from edgeseg.environment import cpu_model, package_versions
from edgeseg.errors import BundleError, InputError
from edgeseg.schema import size_text
from edgeseg.segmenter import Segmenter
from edgeseg.vocabulary import Vocabulary

from ..datasets import Item
from ..identity import engines_sha256
from .count import Count, Worst
from .job import Job

SCHEMA = 1
EVERY_S = 5.0

_KEYS = {"schema", "matrix", "done", "inexact", "worst", "belongs", "files"}
_TODO = "delete it to begin again, or name another with --state"


class State:
    """See the module's text.

    Args:
        path: the file.
        every_s: seconds between two writes; what a kill can lose.
    """

    def __init__(self, path: Path, every_s: float = EVERY_S) -> None:
        self.path, self._every_s = path, every_s
        self._written_s = time.monotonic()

    def load(self, start: Count, belongs: Mapping[str, str], items: Sequence[Item]) -> Count:
        """What was counted before; `start` if there is no file.

        Raises:
            InputError: the file is damaged, belongs to another run, or images that it has counted have changed.
        """
        if not self.path.exists():
            return start
        asked = f"go on from the state {self.path}"
        try:
            held = _Held.parse(read_npz(self.path))
        except (BundleError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(asked, f"it is no state of this version, or damaged ({error})", _TODO) from None
        keys = [key for key in {**held.belongs, **belongs} if held.belongs.get(key) != belongs.get(key)]
        if keys or held.count.matrix.shape != start.matrix.shape:
            changes = (f"{key} was {_short(held.belongs.get(key))}, is {_short(belongs.get(key))}" for key in keys)
            raise InputError(asked, f"it belongs to another run: {'; '.join(changes)}", _TODO)
        if held.count.done > len(items) or held.files != fingerprint(items[: held.count.done]):
            raise InputError(asked, "files that it has counted have changed since", _TODO)
        return held.count

    def keep(self, count: Count, belongs: Mapping[str, str], items: Sequence[Item]) -> None:
        """Write the file if it is time to. Raises StorageError."""
        if time.monotonic() - self._written_s >= self._every_s:
            self.save(count, belongs, items)

    def save(self, count: Count, belongs: Mapping[str, str], items: Sequence[Item]) -> None:
        """Write the file. Raises StorageError."""
        worst = [count.worst.key, count.worst.correct, count.worst.pixels] if count.worst else None
        arrays: dict[str, Any] = {
            "schema": np.array(SCHEMA),
            "matrix": count.matrix,
            "done": np.array(count.done),
            "inexact": np.array(count.inexact),
            "worst": np.array(json.dumps(worst)),
            "belongs": np.array(json.dumps(dict(belongs))),
            "files": np.array(fingerprint(items[: count.done])),
        }
        if count.images is not None:
            arrays["images"] = np.concatenate([np.empty((0, 5), np.int64), *_numbered(count.images)])
        with atomic_write(self.path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
        self._written_s = time.monotonic()

    def remove(self) -> None:
        """Forget it: the run has ended and its result is kept elsewhere."""
        self.path.unlink(missing_ok=True)


def belongs_to(job: Job, segmenters: Sequence[Segmenter]) -> dict[str, str]:
    """What a run's result depends on, in words that can be compared and shown."""
    dataset, options = job.dataset, job.options
    found = {
        "data set": f"{dataset.name} {dataset.split} ({dataset.layout.name})".replace("  ", " "),
        "list of images": _digest("\n".join(item.key for item in dataset.items)),
        "classes": _digest(repr((dataset.classes, dataset.scoring.prompt_classes))),
        "resize rule": options.resize or "the recipe's",
        "canvas": size_text(options.canvas),
        "threshold": repr(options.threshold),
        "settings": ", ".join(f"{name}={value}" for name, value in sorted(options.settings.items())) or "none",
        "class lists": _digest(repr(sorted(options.lists.lists.items()))) if options.lists else "none",
        "classes left early": repr(options.top_k),
        "processor": cpu_model(),
        "edgeseg": edgeseg.__version__,
        "packages": " ".join(f"{name} {version}" for name, version in package_versions().items()),
    }
    for number, (segmenter, one) in enumerate(zip(segmenters, job.sides, strict=True)):
        where = " of the other" if number else ""
        found[f"engine{where}"] = f"{one.precision} on {one.backend} {segmenter.plan.device_key}"
        found[f"files{where}"] = engines_sha256(segmenter)
        found[f"vocabulary{where}"] = _vocabulary_digest(one.vocabulary)
    return found


def _numbered(images: Sequence[npt.NDArray[np.int64]]) -> Iterator[npt.NDArray[np.int64]]:
    """Each image's rows with its index in front, so that they can stand in one table."""
    return (np.insert(rows, 0, index, axis=1) for index, rows in enumerate(images))


def fingerprint(items: Sequence[Item]) -> str:
    """A digest of the keys and file sizes of images, to notice that they were exchanged."""
    sizes = [(item.key, _size(item.image), _size(item.labels)) for item in items]
    return _digest(json.dumps(sizes))


def _vocabulary_digest(vocabulary: Vocabulary) -> str:
    arrays = vocabulary.embeddings.tobytes() + vocabulary.overlap.tobytes()
    return _digest("\n".join(vocabulary.names) + hashlib.sha256(arrays).hexdigest())


@dataclass(frozen=True, eq=False)
class _Held:
    """What a file says."""

    count: Count
    belongs: dict[str, str]
    files: str

    @classmethod
    def parse(cls, held: Mapping[str, npt.NDArray[Any]]) -> _Held:
        if set(held) - {"images"} != _KEYS or int(held["schema"]) != SCHEMA or held["matrix"].dtype != np.int64:
            raise ValueError("its content is another")
        worst = json.loads(str(held["worst"]))
        done, table = int(held["done"]), held.get("images")
        if table is not None and (table.dtype != np.int64 or table.shape[1:] != (5,)):
            raise ValueError("its table of images is another")
        images = None if table is None else tuple(table[table[:, 0] == index, 1:] for index in range(done))
        count = Count(held["matrix"], done, int(held["inexact"]), Worst(*worst) if worst else None, images)
        belongs = json.loads(str(held["belongs"]))
        return cls(count, {str(key): str(value) for key, value in belongs.items()}, str(held["files"]))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _size(path: Path | None) -> int:
    return path.stat().st_size if path else 0


def _short(text: str | None) -> str:
    """A digest by its beginning."""
    return "(nothing)" if text is None else text[:12] if len(text) == 64 and text.isalnum() else text
