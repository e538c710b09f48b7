"""Reads `bundle.json` as the hostile input it may be: bounded, strict, with one clear line for whatever is wrong."""

from __future__ import annotations

import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any, NoReturn

from edgeseg.bundle.check import check_manifest
from edgeseg.bundle.paths import MANIFEST, UNDAMAGED
from edgeseg.errors import BundleError
from edgeseg.schema import SCHEMA, Manifest, from_json, to_json

LIMIT_BYTES = 16 << 20
LIMIT_DEPTH = 32


def read_manifest(folder: Path) -> Manifest:
    """The checked content of `folder/bundle.json`. Raises BundleError."""
    path = folder / MANIFEST
    try:
        value = parse_json(_bytes(path))
    except OSError as error:
        raise BundleError(f"read {path}", error.strerror or str(error), "check the path and its permissions") from error
    except ValueError as error:
        raise BundleError(f"read {path}", f"it is no valid JSON ({error})", UNDAMAGED) from None
    _check_schema(path, value)
    return check_manifest(from_json(Manifest, value, str(path)), str(path))


def parse_json(content: bytes) -> Any:
    """UTF-8 JSON without a key that is there twice, a number that is not finite, or more than `LIMIT_DEPTH` levels.

    Raises:
        ValueError: it is none; the message is short.
    """
    try:
        value = json.loads(
            content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(_short(str(error))) from None
    if _deeper(value, LIMIT_DEPTH):
        raise ValueError("it is nested too deeply")
    return value


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Writes the JSON of a checked manifest, in which two equal manifests are equal bytes."""
    check_manifest(manifest)
    text = json.dumps(to_json(manifest), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    path.write_bytes((text + "\n").encode("utf-8"))


def _bytes(path: Path) -> bytes:
    """Content of a plain file of bounded length; a pipe or a device in its place would block or never end."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"read {path}", "it is no plain file", UNDAMAGED)
    if status.st_size > LIMIT_BYTES:
        found = f"it has {status.st_size} bytes, and {LIMIT_BYTES} is the most a bundle may need"
        raise BundleError(f"read {path}", found, UNDAMAGED)
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
        return file.read(LIMIT_BYTES)


def _check_schema(path: Path, value: Any) -> None:
    schema = value.get("schema") if isinstance(value, dict) else None
    if type(schema) is not int or schema < 1:
        raise BundleError(f"read {path}", "it is not the bundle.json of an edgeseg bundle", UNDAMAGED)
    if schema > SCHEMA:
        writer = str(value.get("edgeseg"))
        version = f" {writer}" if re.fullmatch(r"\d+(\.\d+){1,3}", writer) else ""
        found = f"it has format {schema}, and this edgeseg reads up to {SCHEMA}"
        todo = f'pip install "edgeseg>={version.strip()}"' if version else "install a newer edgeseg"
        raise BundleError(f"read {path}", found, todo)


def _deeper(value: Any, limit: int) -> bool:
    """Whether a JSON value is nested more than `limit` deep; everything that walks one later recurses."""
    level = [value]
    for _ in range(limit):
        level = [inner for outer in level for inner in _inner(outer)]
    return bool(level)


def _inner(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is there twice")
    return value


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{_short(text)} is no finite number")
    return value


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:117]}..."
