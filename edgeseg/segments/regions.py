"""Small islands and holes of masks: connected regions, eight neighbours, found run by run."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bool = npt.NDArray[np.bool_]


def regions(mask: Bool) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Numbers an (H, W) mask's regions: (H, W) int32, 0 outside and 1, 2, ... inside; and each region's pixels."""
    height, width = mask.shape
    padded = np.zeros((height, width + 2), np.int8)
    padded[:, 1:-1] = mask
    step = np.diff(padded, axis=1)
    rows, starts = np.nonzero(step == 1)
    ends = np.nonzero(step == -1)[1]
    root = _joined(rows, starts, ends)
    names, numbers = np.unique(root, return_inverse=True)
    sizes = np.bincount(numbers, weights=ends - starts, minlength=len(names)).astype(np.int64)
    marks = np.zeros((height, width + 1), np.int32)
    np.add.at(marks, (rows, starts), numbers + 1)
    np.add.at(marks, (rows, ends), -(numbers + 1))
    return np.cumsum(marks, axis=1, dtype=np.int32)[:, :width], sizes


def _joined(
    rows: npt.NDArray[np.intp], starts: npt.NDArray[np.intp], ends: npt.NDArray[np.intp]
) -> npt.NDArray[np.intp]:
    """The root of each run; runs of neighbouring rows that touch, also by a corner, share one."""
    parent = list(range(len(rows)))

    def find(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    above, row, first, last = 0, rows.tolist(), starts.tolist(), ends.tolist()
    for run in range(len(row)):
        while above < run and (row[above] < row[run] - 1 or (row[above] == row[run] - 1 and last[above] < first[run])):
            above += 1
        other = above
        while other < run and row[other] == row[run] - 1 and first[other] <= last[run]:
            parent[find(run)] = find(other)
            other += 1
    return np.array([find(run) for run in range(len(row))], np.intp)


def without_small(mask: Bool, area: int) -> Bool:
    """The mask with holes below `area` pixels filled, then islands below it dropped; the largest island stays.

    Returns `mask` itself where there is nothing to change. As segment-anything's small-region rule.
    """
    numbers, sizes = regions(~mask)
    if (sizes < area).any():
        small = np.concatenate(([True], sizes < area))
        mask = small[numbers]
    numbers, sizes = regions(mask)
    if (sizes < area).any():
        large = sizes >= area
        if not large.any():
            large[sizes.argmax()] = True
        mask = np.concatenate(([False], large))[numbers]
    return mask
