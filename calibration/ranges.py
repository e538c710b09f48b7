"""What a calibration found, as a JSON file that people can read and that makes the same graphs again.

`docs/calibration.md` has the keys. A file may come from anywhere, so it is parsed strictly and its numbers are checked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgeseg.atomic import atomic_write
from edgeseg.bundle.read import parse_json
from edgeseg.errors import EdgesegError, InputError
from edgeseg.schema import from_json, to_json

SCHEMA = 1
LIMIT_BYTES = 64 << 20
TODO = "calibrate again with --images"


@dataclass(frozen=True)
class Range:
    """One tensor: its largest magnitude, the range for int8, and the percentile (or "max") that this range is."""

    largest: float
    limit: float
    percentile: str


@dataclass(frozen=True)
class Smoothing:
    """What a group's norms are divided by, channel by channel, and the alpha that this came from."""

    alpha: float
    factors: tuple[float, ...]


@dataclass(frozen=True)
class GraphRanges:
    """One graph, at any canvas.

    Attributes:
        weights: digest of the weights of its layers: the ranges hold for these weights only.
        sites: by site name. `smoothing`: by group name; groups without one stay as they are.
        peaks: largest magnitude of the residual stream at each norm, and of what attentions multiply.
    """

    weights: str
    sites: dict[str, Range]
    smoothing: dict[str, Smoothing] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Images:
    """What was calibrated on.

    Attributes:
        source: "images", or "reference" for the bundle's own reference inputs.
        digest: of all images' contents in order. `count`: how many were used.
        seed: of the order. `unreadable`: how many were left out; `names`: of the first of them.
    """

    source: str
    digest: str
    count: int
    seed: int
    unreadable: int = 0
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ranges:
    """All of `ranges.json`."""

    schema: int
    images: Images
    graphs: dict[str, GraphRanges]


def save_ranges(path: Path, ranges: Ranges) -> None:
    """Write the file; equal ranges are equal bytes. Raises StorageError."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(ranges_bytes(ranges))


def ranges_bytes(ranges: Ranges) -> bytes:
    """The file's content."""
    return (json.dumps(to_json(ranges), indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def load_ranges(path: Path) -> Ranges:
    """Read and check the file. Raises InputError."""
    asked = f"read the ranges {path}"
    try:
        if not path.is_file() or path.stat().st_size > LIMIT_BYTES:
            raise InputError(asked, f"it is no file of at most {LIMIT_BYTES >> 20} MiB", "give a ranges.json")
        ranges = from_json(Ranges, parse_json(path.read_bytes()), str(path))
    except OSError as error:
        raise InputError(asked, error.strerror or str(error), "check the path and its permissions") from error
    except ValueError as error:
        raise InputError(asked, f"it is no valid JSON ({error})", TODO) from None
    except InputError:
        raise
    except EdgesegError as error:
        raise InputError(asked, error.found, TODO) from None
    problem = next(_problems(ranges), None)
    if problem is not None:
        raise InputError(asked, problem, TODO)
    return ranges


def rounded(value: float) -> float:
    """Six digits: what the file holds, and so what graphs are made from."""
    return float(f"{value:.6g}")


def _problems(ranges: Ranges) -> Iterator[str]:
    if ranges.schema != SCHEMA:
        yield f"it has format {ranges.schema}, and this edgeseg reads {SCHEMA}"
    for name, graph in ranges.graphs.items():
        numbers: list[tuple[str, Sequence[float], bool]] = [
            *((site, (found.largest, found.limit), False) for site, found in graph.sites.items()),
            *((group, found.factors, True) for group, found in graph.smoothing.items()),
            *((peak, (value,), False) for peak, value in graph.peaks.items()),
        ]
        for where, values, positive in numbers:
            if not all(math.isfinite(value) and value >= 0 and (value > 0 or not positive) for value in values):
                yield f"{name[:80]} {where[:80]}: these are no magnitudes"
