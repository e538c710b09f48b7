"""Which engines are worth choosing: those that no other beats in mIoU and latency at once.

Points are compared only within one data set, scored alike, and one machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .summary import Row
from .surroundings import between, surroundings


@dataclass(frozen=True)
class Point:
    """One engine.

    Attributes:
        row: its number in the table; `name` in words.
        latency_ms, low_ms, high_ms: median end to end, and the limits of it with 95 % confidence.
        miou_percent: of the whole data set.
        trusted: nothing speaks against the latency.
        beaten_by: rows that are at least as good in both and better in one; empty on the front.
    """

    row: int
    name: str
    latency_ms: float
    low_ms: float
    high_ms: float
    miou_percent: float
    trusted: bool
    beaten_by: tuple[int, ...] = ()


@dataclass(frozen=True)
class Field:
    """The points of one chart, by latency; `title` says of what data set and machine."""

    title: str
    points: tuple[Point, ...]

    @property
    def front(self) -> list[Point]:
        """Those that are not beaten, by latency."""
        return [point for point in self.points if not point.beaten_by]


def fields(rows: Iterable[Row]) -> list[Field]:
    """One for each data set and machine that at least one row has both numbers of."""
    groups: list[list[_Member]] = []
    for member in filter(None, map(_member, rows)):
        home = next((group for group in groups if group[0].is_like(member)), None)
        if home is None:
            groups.append([member])
        else:
            home.append(member)
    return [Field(group[0].title, ranked([member.point for member in group])) for group in groups]


def ranked(points: Sequence[Point]) -> tuple[Point, ...]:
    """By latency, each with those that beat it."""
    ordered = sorted(points, key=lambda point: (point.latency_ms, -point.miou_percent, point.row))
    return tuple(
        replace(point, beaten_by=tuple(other.row for other in ordered if beats(other, point))) for point in ordered
    )


def beats(one: Point, other: Point) -> bool:
    """At least as fast and as accurate, and not the same in both."""
    mine, theirs = (one.latency_ms, -one.miou_percent), (other.latency_ms, -other.miou_percent)
    return mine != theirs and mine[0] <= theirs[0] and mine[1] <= theirs[1]


def accuracy_task(body: dict[str, Any]) -> tuple[Any, ...]:
    """What must be the same for two mIoU to be comparable."""
    dataset = body["dataset"]
    names = tuple(row["name"] for row in body["classes"])
    return *(dataset[key] for key in ("name", "split", "layout", "images")), names


@dataclass(frozen=True, eq=False)
class _Member:
    """A point with what decides where it belongs."""

    point: Point
    accuracy: dict[str, Any]
    latency: dict[str, Any]

    def is_like(self, other: _Member) -> bool:
        if accuracy_task(self.accuracy) != accuracy_task(other.accuracy):
            return False
        same_rules = self.accuracy["convention"] == other.accuracy["convention"]
        return same_rules and not _machine_differs(self.latency, other.latency)

    @property
    def title(self) -> str:
        dataset, environment = self.accuracy["dataset"], self.latency["environment"]
        machine = environment["board"] or f"{environment['cpu']}, {environment['cores']} cores"
        return f"{dataset['name']}, {dataset['images']} images; {machine}"


def _member(row: Row) -> _Member | None:
    """None without both numbers."""
    total, miou, accuracy, latency = row.total, row.miou, row.accuracy, row.latency
    if total is None or miou is None or accuracy is None or latency is None or row.measurement is None:
        return None
    times = (total["p50_ms"], total["p50_low_ms"], total["p50_high_ms"])
    name = f"{accuracy.name} {latency.body['image']['canvas']}"
    point = Point(row.number, name, *times, miou, row.measurement["trusted"])
    return _Member(point, accuracy.body, latency.body)


def _machine_differs(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Engines of one machine may run on its CPU or its GPU, and on different SDKs; all else must be the same."""
    own = ("device", "device_name", "power limit in W")
    found = [one for one in between(surroundings(a), surroundings(b)) if one.what not in own]
    return any(not one.what.startswith("version of the SDK") for one in found)
