"""Reads npz files whose content may be hostile: no pickles, and no header that claims more than the file holds."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeseg.bundle.paths import UNDAMAGED
from edgeseg.errors import BundleError, InputError

LIMIT_BYTES = 1 << 30

_DAMAGE = (OSError, ValueError, EOFError, KeyError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)


def read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Every array of an npz file, by name. Raises BundleError."""
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except _DAMAGE as error:
        raise BundleError(f"read the reference tensors {path.name}", f"they are damaged ({error})", UNDAMAGED) from None


def read_made(path: Path, asked: str, forms: Mapping[str, tuple[str, int]], verb: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a file that a verb of this program writes and anyone may have changed; their values are unchecked.

    Args:
        path: the npz file.
        asked: what it is wanted for, for messages.
        forms: name → kinds of dtype and number of axes; these arrays and no others.
        verb: what makes such a file, "edgeseg vocab".

    Raises:
        InputError: it is missing, damaged, or not of these forms.
    """
    todo = f"make it again with `{verb}`"
    if not path.is_file():
        raise InputError(asked, "there is no such file", f"make one with `{verb}`")
    try:
        arrays = read_npz(path)
    except BundleError as error:
        raise InputError(asked, f"it is no npz file, or {error.found}", todo) from None
    if set(arrays) != set(forms):
        raise InputError(asked, f"it holds {sorted(arrays)[:12]}, not {sorted(forms)}", todo)
    for name, (kinds, axes) in forms.items():
        if arrays[name].dtype.kind not in kinds or arrays[name].ndim != axes:
            raise InputError(asked, f"its {name} are {arrays[name].dtype} with {arrays[name].ndim} axes", todo)
    return arrays


def _check_members(archive: zipfile.ZipFile) -> None:
    members = archive.infolist()
    if sum(member.file_size for member in members) > LIMIT_BYTES:
        raise ValueError(f"they would take more than {LIMIT_BYTES >> 20} MiB")
    for member in members:
        with archive.open(member) as file:
            _check_header(file, member.file_size)


def _check_header(file: Any, size_bytes: int) -> None:
    """Refuses an array whose header claims more bytes than there are; numpy would make room for them first."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array has the unknown format {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    count = 1
    for extent in shape:
        count *= extent
    if count * dtype.itemsize > size_bytes:
        raise ValueError("an array is shorter than its header says")
