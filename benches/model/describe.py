"""The result of `edgeseg bench model` as the lines a person reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from edgeseg.cli.terminal import size_words

from ..latency.describe import verdict_lines

_COUNTED = ("parameters M", "weights", "MACs G", "attention G", "positions G", "element ops M", "FLOP/byte")
_MEASURED = ("ms", "least ms", "roofline", "bound")


def lines(body: dict[str, Any]) -> Iterator[str]:
    """A whole result."""
    yield f"{body['model']} {body['precision']}, canvas {body['canvas']}, {body['classes']} classes"
    measured = "roofline" in body
    header = [*_COUNTED, *(_MEASURED if measured else ())]
    rows = [[row["graph"], *_counted(row), *(_compared(row) if measured else ())] for row in body["graphs"]]
    yield from table(["", *header], rows)
    if measured:
        roofline = body["roofline"]
        yield (
            f"roofline: {2 * roofline['macs_per_s'] / 1e9:.0f} GFLOP/s, {roofline['bytes_per_s'] / 1e9:.1f} GB/s "
            f"({roofline['how']})"
        )
        yield from verdict_lines(body)
    else:
        yield from (f"note: {note}" for note in body["notes"])


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns as wide as they must be; the first one to the left."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, *rows):
        first, *rest = (text.rjust(width) for text, width in zip(row, widths, strict=True))
        yield "  ".join([first.strip().ljust(widths[0]), *rest])


def _counted(row: dict[str, Any]) -> list[str]:
    macs = row["macs"]
    return [
        f"{row['parameters'] / 1e6:.2f}",
        size_words(row["weights_bytes"]),
        f"{macs['total'] / 1e9:.3f}",
        f"{macs['activations'] / 1e9:.3f}",
        f"{macs['positions'] / 1e9:.3f}",
        f"{row['element_operations'] / 1e6:.1f}",
        f"{row['flop_per_byte']:.1f}",
    ]


def _compared(row: dict[str, Any]) -> list[str]:
    if row["latency_ms"] is None:
        return ["-"] * len(_MEASURED)
    return [f"{row['latency_ms']:.2f}", f"{row['least_ms']:.2f}", f"{row['roofline_percent']:.1f} %", row["bound"]]
