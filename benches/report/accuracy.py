"""The sections of scores: how well engines label a data set, class by class; and how far two engines agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..accuracy.scores import CONVENTIONS, EVALUATORS, SUMMARY
from .html import Html, tag
from .pareto import accuracy_task
from .parts import facts, remarks
from .result import Result
from .summary import grouped
from .table import NOTHING, Cell, Table, number

_TWO_CONVENTIONS = (
    f"Two conventions: detectron2 ({EVALUATORS['detectron2']}) leaves out a class that no label shows, "
    f"mmseg ({EVALUATORS['mmseg']}) counts it as 0 where it was predicted."
)


def accuracy_section(results: Sequence[Result]) -> Html | None:
    """None without results. Those of the same images and classes stand side by side."""
    groups: dict[tuple[Any, ...], list[Result]] = {}
    for result in results:
        groups.setdefault(accuracy_task(result.body), []).append(result)
    if not groups:
        return None
    said = tag("p", _TWO_CONVENTIONS, class_="quiet")
    return tag("section", tag("h2", "Accuracy"), said, *(part for group in groups.values() for part in _group(group)))


def agreement_section(results: Sequence[Result]) -> Html | None:
    """None without results."""
    if not results:
        return None
    columns = ["engine", "against", "data set", "same label %", "lowest image", "% there", "from"]
    rows = [_agreement(result.body, f"[{result.number}]") for result in results]
    table = Table(columns, rows, "Share of pixels that two engines label alike; no labels are needed for it")
    notes = remarks(note for result in results for note in result.body["notes"])
    return tag("section", tag("h2", "Agreement"), table.html(), notes)


def place(body: Mapping[str, Any]) -> str:
    """Name and split of a result's data set."""
    dataset = body["dataset"]
    return " ".join(filter(None, (dataset["name"], dataset["split"])))


def _group(results: Sequence[Result]) -> Iterator[Html]:
    body = results[0].body
    yield tag("h3", place(body))
    yield facts({"images": _images(body), "classes": str(len(body["classes"])), "layout": body["dataset"]["layout"]})
    yield _scores(results).html()
    said = grouped((result.number, text) for result in results for text in _about(result.body))
    yield remarks(f"{_marks(numbers, results)}{text}" for text, numbers in said.items()) or Html()
    yield tag("h4", "IoU of each class")
    yield _classes(results).html(tall=len(body["classes"]) > 20)


def _images(body: Mapping[str, Any]) -> str:
    published = body["dataset"]["images_published"]
    return f"{body['images']}" + (f" of {published} published" if published not in (None, body["images"]) else "")


def _scores(results: Sequence[Result]) -> Table:
    columns = ["engine", "convention", *(f"{word} %" for word in SUMMARY.values()), "from"]
    return Table(columns, [_score(result, name) for result in results for name in _conventions(result)])


def _conventions(result: Result) -> list[str]:
    """The one that was chosen, and the other where its numbers differ."""
    scores, chosen = result.body["scores"], result.body["convention"]
    return [name for name in CONVENTIONS if name == chosen or scores[name] != scores.get(chosen)]


def _score(result: Result, convention: str) -> list[Cell]:
    found = result.body["scores"][convention]
    values = [number(found[f"{name}_percent"]) for name in SUMMARY]
    return [Cell(result.name), Cell(convention), *values, Cell(f"[{result.number}]")]


def _marks(numbers: Sequence[int], results: Sequence[Result]) -> str:
    return "" if len(numbers) == len(results) else "".join(f"[{number_}] " for number_ in numbers)


def _about(body: Mapping[str, Any]) -> Iterator[str]:
    """What the numbers of a result include, and what a reader must know about them."""
    rule, worst = body["resize"] or {"mode": "none"}, body["worst_image"]
    rest = ", ".join(f"{name} {value}" for name, value in rule.items() if name != "mode")
    canvas = f", on {body['canvas']}" if body["canvas"] else ""
    yield f"how images went in: resize {rule['mode']}{f' ({rest})' if rest else ''}{canvas}"
    if body["threshold"]:
        yield f"pixels with a best score below {body['threshold']} are none of the classes"
    if body.get("settings"):
        yield f"set: {', '.join(f'{name}={value}' for name, value in body['settings'].items())}"
    if body.get("class_lists"):
        yield f"classes of each image: those that {body['class_lists']} lists"
    if "top_k" in body:
        yield f"classes were rejected early, all but {body['top_k']}"
    if worst:
        yield f"worst image: {worst['key']}, {worst['correct_percent']:.2f} % of its pixels right"
    yield from body["notes"]


def _classes(results: Sequence[Result]) -> Table:
    bodies = [result.body["classes"] for result in results]
    whole = sum(row["labelled_pixels"] for row in bodies[0]) or 1
    columns = ["class", *(f"IoU % [{result.number}]" for result in results), "seen in training", "labelled pixels %"]
    return Table(columns, [_class([rows[index] for rows in bodies], whole) for index in range(len(bodies[0]))])


def _class(rows: Sequence[Mapping[str, Any]], whole: int) -> list[Cell]:
    seen = " / ".join(dict.fromkeys({True: "yes", False: "no", None: NOTHING}[row["seen"]] for row in rows))
    bars = [_bar(row["iou_percent"]) for row in rows]
    return [Cell(rows[0]["name"]), *bars, Cell(seen), number(100 * rows[0]["labelled_pixels"] / whole)]


def _bar(percent: float | None) -> Cell:
    return Cell(number(percent).text, None if percent is None else percent / 100, number=True)


def _agreement(body: Mapping[str, Any], source: str) -> list[Cell]:
    engines = [f"{one['model']} {one['precision']} {one['backend']}" for one in (body, body["against"])]
    worst = body["worst_image"] or {"key": NOTHING, "correct_percent": None}
    where = Cell(f"{place(body)}, {body['images']} images")
    lowest = [Cell(worst["key"]), number(worst["correct_percent"])]
    return [*map(Cell, engines), where, number(body["agreement_percent"]), *lowest, Cell(source)]
