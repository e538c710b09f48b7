"""Initialisers of ONNX graphs: read from wherever they are, written once each into one file that graphs share.

A graph's canvases differ in a few tables (positions) and agree in everything else, so their weights go into one
external data file in which equal contents are stored once.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol

import numpy as np
import numpy.typing as npt
import onnx
from onnx import external_data_helper, numpy_helper

from edgeseg.errors import BundleError

INLINE_BYTES = 1024  # smaller tensors stay in the graph, where shape inference and people can see them
ALIGNMENT = 64

Array = npt.NDArray[np.generic]


class Writer(Protocol):
    """Whatever keeps the array of an initialiser."""

    def tensor(self, name: str, array: Array, dtype: npt.DTypeLike | None = None) -> onnx.TensorProto:
        """An initialiser of that name, as `dtype` if given."""
        ...


class WeightReader:
    """Reads the initialisers of one model, whose external files are the given ones and no others.

    Args:
        files: the external data files that the bundle lists for the graph; a location outside them is refused.
    """

    def __init__(self, files: list[Path]) -> None:
        self._files = {path.name: path for path in files}

    def read(self, tensor: onnx.TensorProto) -> Array:
        """The tensor as an array; external data are mapped, not copied."""
        if not external_data_helper.uses_external_data(tensor):
            return numpy_helper.to_array(tensor)
        where = {entry.key: entry.value for entry in tensor.external_data}
        path = self._files.get(where["location"])
        if path is None:
            raise BundleError(
                f"read the weight {tensor.name}",
                f"it refers to the file {where['location']!r}, which is not this graph's weight file",
                "make the bundle again",
            )
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        offset = int(where.get("offset", 0))
        count = int(np.prod(tensor.dims, dtype=np.int64))
        if offset < 0 or offset + count * dtype.itemsize > path.stat().st_size:
            raise BundleError(f"read the weight {tensor.name}", f"{path.name} is too short for it", "copy it again")
        if count == 0:
            return np.zeros(tuple(tensor.dims), dtype)
        return np.memmap(path, dtype, "r", offset, tuple(tensor.dims))


class WeightWriter:
    """Writes initialisers into one external data file; the same contents are written once.

    Args:
        path: the file to write. Graphs refer to it by its name, so they must lie in the same folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[bytes, tuple[int, int]] = {}
        self._file: IO[bytes] | None = None

    def __enter__(self) -> WeightWriter:
        self._file = self._path.open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def tensor(self, name: str, array: Array, dtype: npt.DTypeLike | None = None) -> onnx.TensorProto:
        """An initialiser holding the array, as `dtype` if given; inline if it is small."""
        kind = array.dtype if dtype is None else np.dtype(dtype)
        if array.nbytes <= INLINE_BYTES:
            return numpy_helper.from_array(array.astype(kind), name)  # a scalar stays one
        key = _digest(array, kind)
        if key not in self._known:
            self._known[key] = self._append(array.astype(kind, copy=False))
        return self._external(name, array.shape, kind, self._known[key])

    def _append(self, array: Array) -> tuple[int, int]:
        assert self._file is not None  # entered
        self._file.write(b"\0" * (-self._file.tell() % ALIGNMENT))
        offset = self._file.tell()
        self._file.write(_bytes(array))
        return offset, array.nbytes

    def _external(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype[np.generic], place: tuple[int, int]
    ) -> onnx.TensorProto:
        tensor = onnx.TensorProto(
            name=name,
            data_type=onnx.helper.np_dtype_to_tensor_dtype(dtype),
            dims=shape,
            data_location=onnx.TensorProto.EXTERNAL,
        )
        values = {"location": self._path.name, "offset": place[0], "length": place[1]}
        for key, value in values.items():
            tensor.external_data.add(key=key, value=str(value))
        return tensor


def _digest(array: Array, kind: np.dtype[np.generic]) -> bytes:
    contents = hashlib.blake2b(f"{array.dtype} {kind} ".encode())
    contents.update(_bytes(array))
    return contents.digest()


def _bytes(array: Array) -> memoryview:
    """The contents; fp8 is no type that buffers know."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
