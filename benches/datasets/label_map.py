"""What the numbers in a label file mean: from the published values to class indices."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeseg.errors import InputError

Int32 = npt.NDArray[np.int32]

IGNORE = -1
"""The label of a pixel that is not scored."""

_REFUSED = -2
_VALUES = 1 << 16
_SHOWN = 5


@dataclass(frozen=True)
class LabelMap:
    """The values of a label file, 8 or 16 bits.

    Attributes:
        values: the value of class 0, 1, ...; -1 for a class that only `others` gives.
        ignored: values that mean "not scored", if they are no class.
        others: what any other value below `limit` means, a class index or `IGNORE`; None refuses it.
        limit: values from here on are refused, unless they are in `ignored`.
    """

    values: tuple[int, ...]
    ignored: tuple[int, ...] = ()
    others: int | None = None
    limit: int = _VALUES

    def table(self) -> Int32:
        """(65536,) int32: value → class index, `IGNORE`, or a mark for values that are refused."""
        table = np.full(_VALUES, _REFUSED, np.int32)
        if self.others is not None:
            table[: self.limit] = self.others
        table[list(self.ignored)] = IGNORE
        for index, value in enumerate(self.values):
            if value >= 0:
                table[value] = index
        return table


def counted(classes: int, first: int, ignored: tuple[int, ...]) -> LabelMap:
    """Classes in a row: class 0 has the value `first`."""
    return LabelMap(tuple(range(first, first + classes)), ignored)


def listed(file: str) -> tuple[int, ...]:
    """The numbers of a file of `benches/data`, whose first line says what they are."""
    text = (resources.files("edgeseg.benches") / "data" / file).read_text("utf-8")
    return tuple(map(int, text.split("\n", 1)[1].split()))


def apply(table: Int32, raw: npt.NDArray[Any], path: Path) -> Int32:
    """Class indices of a label file's values.

    Args:
        table: of `LabelMap.table`.
        raw: (H, W) integers.
        path: the file, for the message.

    Returns:
        (H, W) int32: class indices and `IGNORE`.

    Raises:
        InputError: a value is outside the map; the message counts them.
    """
    if raw.size and (raw.min() < 0 or raw.max() >= _VALUES):
        found = f"its values go from {raw.min()} to {raw.max()}"
        raise InputError(f"read the labels {path}", found, "give labels of 8 or 16 bits")
    labels: Int32 = table[raw.astype(np.intp, copy=False)]  # a mask of booleans would select instead
    refused = labels == _REFUSED
    if refused.any():
        raise _outside(raw[refused], path)
    return labels


def _outside(values: npt.NDArray[Any], path: Path) -> InputError:
    found, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    shown = ", ".join(f"{found[i]} ({counts[i]} pixels)" for i in order[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    text = f"{values.size} pixels have values that are no class of this data set: {shown}{more}"
    return InputError(f"read the labels {path}", text, "check that it is this data set's label file, or mend it")
