"""The one table of a report: for each engine what it gives and what it costs, joined from the results that are of it.

An accuracy and a latency belong together if both are of the same files, run by the same backend in the same precision
(`Result.engine`). Where the accuracy was counted on one canvas only, latencies of others do not belong to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeseg.cli.terminal import size_words

from ..accuracy.scores import EVALUATORS
from .result import EngineKey, Result, of_kind
from .table import NOTHING, Cell, Table, milliseconds, number

Measurement = Mapping[str, Any]

_JOINED = ("accuracy", "latency", "model")
_COUNTED = "those of all graphs but the text encoder, which runs once for a class list"


@dataclass(frozen=True, eq=False)
class Row:
    """One line of the table.

    Attributes:
        number: from 1; how the chart refers to it.
        accuracy, latency, model: where it comes from; None where there is none.
        measurement: the one of the latency's that is taken.
    """

    number: int
    accuracy: Result | None = None
    latency: Result | None = None
    measurement: Measurement | None = None
    model: Result | None = None

    @property
    def any(self) -> Result:
        """One of its results."""
        found = self.accuracy or self.latency or self.model
        assert found is not None
        return found

    @property
    def miou(self) -> float | None:
        """In percent, by the convention that was chosen when it was scored."""
        return None if self.accuracy is None else main_miou(self.accuracy)

    @property
    def total(self) -> Mapping[str, Any] | None:
        """The measurement's end-to-end latency."""
        return None if self.measurement is None else self.measurement["totals"][0]

    @property
    def sources(self) -> list[Result]:
        """The results that it comes from."""
        return [result for result in (self.accuracy, self.latency, self.model) if result]


def main_miou(result: Result) -> float | None:
    """In percent, by the convention that was chosen when it was scored."""
    scores = result.body["scores"].get(result.body["convention"]) or {}
    value: float | None = scores.get("miou_percent")
    return value


def summary_rows(results: Sequence[Result]) -> list[Row]:
    """Every engine's accuracies with its latencies, in the order of the files."""
    groups: dict[EngineKey, list[Result]] = {}
    for result in results:
        if result.engine and result.kind in _JOINED:
            groups.setdefault(result.engine, []).append(result)
    found = [row for group in groups.values() for row in _engine_rows(group)]
    return [Row(index, *row) for index, row in enumerate(found, 1)]


def summary_table(rows: Sequence[Row]) -> Table:
    """The rows as a table."""
    columns = ["row", "model", "precision", "mIoU %", "p50 ms", "trusted", "p95 ms", "p99 ms", "runs on", "data set"]
    columns += ["canvas", "classes", "host peak", "parameters M", "GMACs", "from"]
    return Table(columns, [_cells(row) for row in rows])


def notes(rows: Sequence[Row]) -> Iterator[str]:
    """What the numbers of the table include, and what a reader must know about them."""
    yield from _alike(rows, "mIoU is the mean over classes by the rules of", _evaluator)
    yield from _alike(rows, "p50, p95 and p99 are", _included)
    yield from _alike(rows, "the GMACs and parameters are", lambda row: _COUNTED if row.model else None)
    said = grouped((row.number, text) for row in rows for text in _row_notes(row))
    yield from (f"{_rows(numbers)}: {text}" for text, numbers in said.items())


def grouped(said: Iterable[tuple[int, str]]) -> dict[str, list[int]]:
    """Text → the numbers of those of which it is said."""
    groups: dict[str, list[int]] = {}
    for number_, text in said:
        groups.setdefault(text, []).append(number_)
    return groups


def _rows(numbers: Sequence[int]) -> str:
    return f"row{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _evaluator(row: Row) -> str | None:
    convention = row.accuracy.body["convention"] if row.accuracy else None
    return EVALUATORS.get(convention, convention) if convention else None


def _included(row: Row) -> str | None:
    return str(row.total["included"]) if row.total else None


def _alike(rows: Sequence[Row], title: str, say: Callable[[Row], str | None]) -> Iterator[str]:
    """What is said of the rows; in one sentence, if it is the same of all."""
    said = grouped((row.number, text) for row in rows if (text := say(row)) is not None)
    for text, numbers in said.items():
        yield f"{'' if len(said) == 1 else _rows(numbers) + ': '}{title} {text}"


_Found = tuple[Result | None, Result | None, Measurement | None, Result | None]


def _engine_rows(results: Sequence[Result]) -> list[_Found]:
    model = next(iter(of_kind(results, "model")), None)
    accuracies, latencies = of_kind(results, "accuracy"), of_kind(results, "latency")
    rows: list[_Found] = []
    used: set[int] = set()
    for accuracy in accuracies:
        fitting = [latency for latency in latencies if _fits(accuracy, latency)]
        used |= {latency.number for latency in fitting}
        wanted = len(accuracy.body["prompts"])
        rows += [(accuracy, latency, _nearest(latency, wanted), model) for latency in fitting]
        rows += [] if fitting else [(accuracy, None, None, model)]
    rows += [
        (None, latency, latency.body["measurements"][0], model) for latency in latencies if latency.number not in used
    ]
    return rows or [(None, None, None, model)]


def _fits(accuracy: Result, latency: Result) -> bool:
    single = any(row["batch"] == 1 for row in latency.body["measurements"])
    return single and accuracy.body["canvas"] in (None, latency.body["image"]["canvas"])


def _nearest(latency: Result, classes: int) -> Measurement:
    """The measurement of one image with as many classes, or with the number nearest to it."""
    single = [row for row in latency.body["measurements"] if row["batch"] == 1]
    found: Measurement = min(single, key=lambda row: (abs(row["classes"] - classes), row["classes"]))
    return found


def _cells(row: Row) -> list[Cell]:
    body, total, measurement = row.any.body, row.total, row.measurement
    dataset = row.accuracy.body["dataset"] if row.accuracy else None
    times = [milliseconds(total[f"{name}_ms"]) for name in ("p50", "p95", "p99")] if total else [number(None)] * 3
    memory = measurement["memory"]["host_peak_bytes"] if measurement else None
    graphs = [graph for graph in row.model.body["graphs"] if graph["graph"] != "text"] if row.model else None
    return [
        Cell(str(row.number), number=True),
        Cell(body["model"]),
        Cell(body["precision"]),
        number(row.miou),
        times[0],
        Cell(NOTHING if measurement is None else "yes" if measurement["trusted"] else "no"),
        *times[1:],
        Cell(f"{body['backend']} {body['device']}"),
        Cell(_words(dataset)),
        Cell(row.latency.body["image"]["canvas"] if row.latency else NOTHING),
        Cell(str(measurement["classes"]) if measurement else NOTHING, number=True),
        Cell(size_words(memory) if memory else NOTHING, number=True),
        number(sum(graph["parameters"] for graph in graphs) / 1e6 if graphs else None, 1),
        number(sum(graph["macs"]["total"] for graph in graphs) / 1e9 if graphs else None, 1),
        Cell(" ".join(f"[{result.number}]" for result in row.sources)),
    ]


def _words(dataset: Mapping[str, Any] | None) -> str:
    if dataset is None:
        return NOTHING
    split = f" {dataset['split']}" if dataset["split"] else ""
    return f"{dataset['name']}{split}, {dataset['images']} images"


def _row_notes(row: Row) -> Iterator[str]:
    if row.accuracy and row.measurement and row.measurement["classes"] != len(row.accuracy.body["prompts"]):
        asked = len(row.accuracy.body["prompts"])
        yield f"scored with {asked} classes, timed with {row.measurement['classes']}"
    if row.measurement and row.measurement["batch"] > 1:
        yield f"the graphs alone, {row.measurement['batch']} images at once"
    if row.measurement and not row.measurement["trusted"]:
        yield f"the latency is not to be trusted because {'; '.join(row.measurement['reasons'])}"
    if row.accuracy:
        yield from row.accuracy.body["notes"]
