"""How close a tensor is to the samples that a bundle keeps of torch's."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeseg.backends.base import Array

SAMPLES = 16384
"""Most values of a tensor that a bundle keeps."""

OUTLIERS = 0.25
"""Share of the rows of a tensor behind a threshold that may be further off than its cosine says."""


def sample(array: Array) -> Array:
    """The flat samples of a tensor that a bundle keeps: every n-th value, at most `SAMPLES`, float32."""
    return array.ravel()[:: max(-(-array.size // SAMPLES), 1)].astype(np.float32)


def difference(found: Array, wanted: Array) -> dict[str, Any]:
    """Fields of a `TensorCheck`; a NaN never compares as equal.

    Args:
        found: the whole tensor.
        wanted: samples of torch's.

    Returns:
        `cosine`, `max_abs`, and `problem` if they cannot be compared or `length` if neither is zero.
    """
    if not np.isfinite(found).all():
        return {"cosine": -1.0, "max_abs": -1.0, "problem": f"it holds {not_finite(found)}"}
    samples = sample(found)
    if samples.shape != wanted.shape:
        problem = f"it has {samples.size} samples, and torch's has {wanted.size}"
        return {"cosine": -1.0, "max_abs": -1.0, "problem": problem}
    a, b = samples.astype(np.float64), wanted.astype(np.float64)
    mine, theirs = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    furthest = float(np.abs(a - b).max(initial=0.0))
    if not (mine and theirs):
        return {"cosine": float(mine == theirs), "max_abs": furthest}
    return {"cosine": min(float(a @ b) / (mine * theirs), 1.0), "max_abs": furthest, "length": mine / theirs}


def cosine_of_rows(found: Array, wanted: Array) -> float:
    """The cosine that three quarters of the rows reach, a row being what lies along the last axis.

    One pixel whose logit crosses zero, as rounding alone may make it, turns the row of a small mask as far as it likes.
    Such rows are few; what an engine does wrong, it does to all.

    Args:
        found: (..., D), the whole tensor.
        wanted: samples of torch's.
    """
    step = max(-(-found.size // SAMPLES), 1)
    row = np.arange(wanted.size) * step // found.shape[-1]
    a, b = sample(found).astype(np.float64), wanted.astype(np.float64)
    dots, mine, theirs = (np.bincount(row, weights) for weights in (a * b, a * a, b * b))
    lengths = np.sqrt(mine * theirs)
    cosines = np.where(lengths > 0, dots / np.maximum(lengths, 1e-30), np.maximum(mine, theirs) == 0)
    seen = np.bincount(row) > 0  # of a tensor with very many rows, some have no sample
    return float(np.quantile(cosines[seen], OUTLIERS, method="lower").clip(-1, 1))


def not_finite(array: Array) -> str:
    """How many values are not finite, in words."""
    count = int(array.size - np.isfinite(array).sum())
    return f"{count} of {array.size} values that are not finite numbers"
