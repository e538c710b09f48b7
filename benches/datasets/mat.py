"""Reads one numeric matrix of a MATLAB 5 file (`.mat`), the format in which Pascal Context's 459 labels are published.

Knows what these files hold and no more: little or big endian, compressed or not, real numbers on two axes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeseg.errors import InputError

LIMIT_BYTES = 1 << 26

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = range(6, 16)  # double, single, and the integers
_DAMAGE = (struct.error, zlib.error, ValueError, IndexError, KeyError, UnicodeDecodeError)


def read_matrix(path: Path, name: str) -> npt.NDArray[Any]:
    """The matrix called `name`, (rows, columns), of whole numbers as integers.

    Raises:
        InputError: the file cannot be read, is damaged, or holds no such matrix.
    """
    asked = f"read the labels {path}"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(asked, error.strerror or str(error), "check the file") from None
    try:
        found = next((matrix for key, matrix in _matrices(data) if key == name), None)
    except _DAMAGE as error:
        raise InputError(asked, f"it is no MATLAB 5 file, or damaged ({error})", "get an undamaged copy") from None
    if found is None:
        raise InputError(asked, f"it holds no matrix {name}", "give the label files as they were published")
    return found


def _matrices(data: bytes) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    order = {b"IM": "<", b"MI": ">"}[data[126:128]]
    for kind, body in _elements(data[_HEADER:], order):
        if kind == _COMPRESSED:
            body = zlib.decompressobj().decompress(body, LIMIT_BYTES)
            kind, body = next(_elements(body, order))
        if kind == _MATRIX:
            found = _matrix(body, order)
            if found is not None:
                yield found


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """(type, content) of each element; a small one keeps type and length in four bytes and its content behind them."""
    at = 0
    while at < len(data):
        kind, length = struct.unpack_from(f"{order}II", data, at)
        if kind >> 16:
            yield kind & 0xFFFF, data[at + 4 : at + 4 + (kind >> 16)]
            at += 8
            continue
        if at + 8 + length > len(data):
            raise ValueError("an element is longer than the file")
        yield kind, data[at + 8 : at + 8 + length]
        at += 8 + length + (-length % 8 if kind != _COMPRESSED else 0)


def _matrix(body: bytes, order: str) -> tuple[str, npt.NDArray[Any]] | None:
    """Name and values; None for what is no plain matrix (a cell, a text)."""
    (_, flags), (_, sides), (_, name), *parts = _elements(body, order)
    shape = np.frombuffer(sides, f"{order}i4")
    if struct.unpack_from(f"{order}I", flags)[0] & 0xFF not in _CLASSES or len(shape) != 2 or not parts:
        return None
    kind, content = parts[0]
    values = np.frombuffer(content, order + _TYPES[kind]).reshape(shape, order="F")
    with np.errstate(invalid="ignore"):  # NaN; refused below
        whole = values.astype(np.int64)
    if not np.array_equal(whole, values):
        raise ValueError("the labels are no whole numbers")
    return name.decode("ascii"), whole
