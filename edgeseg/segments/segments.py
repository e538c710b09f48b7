"""The segments of one photo, and their file (`.npz`, docs/segments.md).

A file may come from anyone: no pickles, every value checked before use.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeseg.atomic import atomic_write
from edgeseg.bundle.arrays import read_made
from edgeseg.errors import InputError
from edgeseg.schema import Size
from edgeseg.segments.runs import Runs, UInt32, check, pack

Float32 = npt.NDArray[np.float32]

UNIT_TOLERANCE = 1e-3
_VERB = "edgeseg segments"
_TODO = f"make it again with `{_VERB}`"
_FORMS = {  # name → dtype kinds, axes
    "size": ("iu", 1),
    "counts": ("u", 1),
    "starts": ("i", 1),
    "boxes": ("i", 2),
    "areas": ("i", 1),
    "iou": ("f", 1),
    "stability": ("f", 1),
    "points": ("f", 2),
    "answer": ("i", 1),
    "embeddings": ("f", 2),
    "encoder": ("U", 0),
    "image": ("U", 0),
    "bundle": ("U", 0),
}


@dataclass(frozen=True, eq=False)
class Segments:
    """N masks of one photo, which may overlap and leave pixels out.

    Attributes:
        runs: the masks.
        iou: (N,) float32, the decoder's estimate of each mask's quality; 1 for a mask that was given.
        stability: (N,) float32, see `AutomaticOptions`; 1 for a mask that was given, NaN for an empty one of SAM.
        points: (N, 2) float32, (x, y) in pixels, the point that asked for it; NaN for a box's mask or a given one.
        answer: (N,) int8, which of the point's masks it is, 1 to 3; 0 for a box's mask, -1 for one that was given.
        embeddings: (N, D) float32 unit rows in the space of the class names; (N, 0) if nothing embeds them.
        encoder: 64 hex digits that name the text encoder of that space; "" if there is none.
        image, bundle: paths of the photo and of the bundle that made this, "" if unknown.
    """

    runs: Runs
    iou: Float32
    stability: Float32
    points: Float32
    answer: npt.NDArray[np.int8]
    embeddings: Float32 | None = None
    encoder: str = ""
    image: str = ""
    bundle: str = ""

    def __len__(self) -> int:
        return len(self.runs)

    @property
    def size(self) -> Size:
        """(H, W) of the photo."""
        return self.runs.size

    def take(self, indices: Sequence[int] | npt.NDArray[np.integer]) -> Segments:
        """Some of the segments, in this order."""
        rows = np.asarray(indices, np.intp)
        embeddings = None if self.embeddings is None else self.embeddings[rows]
        kept = {name: getattr(self, name)[rows] for name in ("iou", "stability", "points", "answer")}
        return replace(self, runs=self.runs.take(rows), embeddings=embeddings, **kept)

    def with_runs(self, masks: Sequence[UInt32], size: Size) -> Segments:
        """The same with other masks, one for one."""
        return replace(self, runs=pack(masks, size))

    def described(self) -> dict[str, Any]:
        """All but masks and embeddings, as JSON; docs/json.md has the keys."""
        boxes, areas = self.runs.boxes().tolist(), self.runs.areas().tolist()
        listed = [
            {
                "box": boxes[i],
                "area_pixels": areas[i],
                "predicted_iou": _finite(self.iou[i]) if self.answer[i] >= 0 else None,
                "stability": _finite(self.stability[i]) if self.answer[i] >= 0 else None,
                "point": [float(side) for side in self.points[i]] if self.answer[i] > 0 else None,
            }
            for i in range(len(self))
        ]
        width = 0 if self.embeddings is None else self.embeddings.shape[1]
        return {"height": self.size[0], "width": self.size[1], "embedding": width, "segments": listed}

    def save(self, path: Path) -> None:
        """Write the file; an existing one is replaced only once the new one is complete. Raises StorageError."""
        embeddings = np.zeros((len(self), 0), np.float32) if self.embeddings is None else self.embeddings
        arrays: dict[str, Any] = {
            "size": np.array(self.size),
            "counts": self.runs.counts,
            "starts": self.runs.starts,
            "boxes": self.runs.boxes(),
            "areas": self.runs.areas(),
            "iou": self.iou,
            "stability": self.stability,
            "points": self.points,
            "answer": self.answer,
            "embeddings": embeddings,
            "encoder": np.array(self.encoder),
            "image": np.array(self.image),
            "bundle": np.array(self.bundle),
        }
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> Segments:
        """Read what `save` wrote; an `InputError` names what is wrong with any other file."""
        asked = f"read the segments {path}"
        arrays = _read(path, asked)
        height, width = map(int, arrays["size"])
        runs = check(Runs((height, width), arrays["counts"].astype(np.uint32), arrays["starts"]), asked)
        embeddings = arrays["embeddings"].astype(np.float32)
        parts = {name: arrays[name].astype(np.float32) for name in ("iou", "stability", "points")}
        return cls(
            runs,
            **parts,
            answer=arrays["answer"].astype(np.int8),
            embeddings=embeddings if embeddings.shape[1] else None,
            encoder=str(arrays["encoder"]),
            image=str(arrays["image"]),
            bundle=str(arrays["bundle"]),
        )


def given(runs: Runs) -> Segments:
    """Segments of masks that no one estimated."""
    ones = np.ones(len(runs), np.float32)
    points, answer = np.full((len(runs), 2), np.nan, np.float32), np.full(len(runs), -1, np.int8)
    return Segments(runs, ones, ones, points, answer)


def _finite(value: np.float32) -> float | None:
    """None for the stability of an empty mask, which is no number."""
    return float(value) if np.isfinite(value) else None


def _read(path: Path, asked: str) -> dict[str, npt.NDArray[Any]]:
    arrays = read_made(path, asked, _FORMS, _VERB)
    problem = _problem(arrays)
    if problem:
        raise InputError(asked, problem, _TODO)
    return arrays


def _problem(arrays: dict[str, npt.NDArray[Any]]) -> str | None:
    """What does not fit together, or None."""
    count = len(arrays["starts"]) - 1
    if len(arrays["size"]) != 2 or count < 0 or (arrays["size"] < 1).any() or (arrays["size"] > 1 << 16).any():
        return "its size or its number of masks is damaged"
    for name in ("boxes", "areas", "iou", "stability", "points", "answer", "embeddings"):
        if len(arrays[name]) != count:
            return f"it has {count} masks and {len(arrays[name])} {name}"
    if arrays["points"].shape[1] != 2 or arrays["boxes"].shape[1] != 4:
        return "its points or boxes have the wrong number of coordinates"
    if not re.fullmatch("([0-9a-f]{64})?", str(arrays["encoder"])):
        return "its encoder is not 64 hex digits"
    lengths = np.linalg.norm(arrays["embeddings"].astype(np.float64), axis=1)
    known = arrays["embeddings"].shape[1] > 0
    # An empty mask has no embedding: its row is zero.
    if known and not np.all(np.isclose(lengths, 1, atol=UNIT_TOLERANCE) | (lengths == 0)):
        return "its embeddings are not all finite and of length 1"
    return None
