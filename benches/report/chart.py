"""The chart of mIoU against latency.

SVG of our own: some kilobytes that are sharp at any size, take their colours from the page's style sheet, dark or
light, and need no package; a plotting library would burn in colours and fonts. Places are in percent and texts
in the page's own sizes, so the chart can be as narrow as a phone and stay readable.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .html import Html, escaped, join, tag
from .pareto import Field, Point

LOG_FROM = 8.0
"""Latencies whose largest is more than so many times the smallest are drawn on a logarithmic axis."""

_TICKS = 7
_MARGIN = 0.12


@dataclass(frozen=True)
class Axis:
    """Values to places.

    Attributes:
        low, high: at 0 and 100 percent.
        ticks: values that are marked.
        logarithmic: equal distances are equal factors.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def percent(self, value: float) -> float:
        """0 to 100; beyond the axis its end."""
        low, high, at = (math.log(max(x, 1e-12)) if self.logarithmic else x for x in (self.low, self.high, value))
        return min(max(100 * (at - low) / (high - low), 0.0), 100.0)


def linear_axis(values: Sequence[float], least: float = 1.0) -> Axis:
    """A little further than the smallest and the largest, at least so wide; ticks are round numbers."""
    middle, wide = (min(values) + max(values)) / 2, max(max(values) - min(values), least)
    low, high = (middle + side * (0.5 + _MARGIN) * wide for side in (-1, 1))
    step = _round_step((high - low) / _TICKS)
    first = math.ceil(low / step)
    return Axis(low, high, tuple(index * step for index in range(first, math.floor(high / step) + 1)))


def log_axis(values: Sequence[float]) -> Axis:
    """The same by factors; ticks at 1, 2 and 5 times the powers of ten, or at the powers alone if that is many."""
    low, high = min(values) / 1.25, max(values) * 1.25
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    shown = [tick for tick in ticks if low <= tick <= high]
    few = [tick for tick in shown if math.log10(tick).is_integer()] if len(shown) > _TICKS else shown
    return Axis(low, high, tuple(few), True)


def latency_axis(points: Sequence[Point]) -> Axis:
    """For the points' medians and their limits."""
    values = [max(value, 1e-6) for point in points for value in (point.low_ms, point.latency_ms, point.high_ms)]
    return log_axis(values) if max(values) > LOG_FROM * min(values) else linear_axis(values, 0.1 * max(values))


def chart(field: Field) -> Html:
    """A figure. What it shows is said in its label and in the table below it, for those who do not see it."""
    across, up = latency_axis(field.points), linear_axis([point.miou_percent for point in field.points])
    parts = [*_grid(across, up), *_steps(field.front, across, up), *_points(field.points, across, up)]
    front = "; ".join(f"{p.name}: {p.latency_ms:.4g} ms, {p.miou_percent:.2f} %" for p in field.front)
    label = f"mIoU against latency. On the front: {front}"
    area = tag("svg", *parts, role="img", aria_label=label, class_="area")
    scale = ", logarithmic" if across.logarithmic else ""
    axes = tag("p", f"↑ mIoU in percent; → median latency end to end in ms{scale}", class_="axes")
    return tag("figure", tag("figcaption", field.title), tag("div", area, class_="plot"), axes, class_="chart")


def _grid(across: Axis, up: Axis) -> Iterator[Html]:
    for tick in across.ticks:
        at = _percent(across.percent(tick))
        yield tag("line", x1=at, x2=at, y1="0%", y2="100%", class_="grid")
        yield tag("text", f"{tick:g}", x=at, y="100%", dy="1.4em", text_anchor="middle", class_="tick")
    for tick in up.ticks:
        at = _percent(100 - up.percent(tick))
        yield tag("line", x1="0%", x2="100%", y1=at, y2=at, class_="grid")
        yield tag("text", f"{tick:g}", x="0%", y=at, dx="-0.5em", dy="0.35em", text_anchor="end", class_="tick")


def _steps(front: Sequence[Point], across: Axis, up: Axis) -> Iterator[Html]:
    """From each choice to the next: what more latency buys."""
    for left, right in itertools.pairwise(front):
        x1, x2 = across.percent(left.latency_ms), across.percent(right.latency_ms)
        y1, y2 = 100 - up.percent(left.miou_percent), 100 - up.percent(right.miou_percent)
        yield _line(x1, x2, (y1, y1), "front")
        yield _line(x2, x2, (y1, y2), "front")


def _points(points: Sequence[Point], across: Axis, up: Axis) -> Iterator[Html]:
    """A dot with its row's number, in turn above and below; the front is filled, the rest is hollow and pale."""
    for index, point in enumerate(points):
        kind = "beaten" if point.beaten_by else "best"
        x, y = across.percent(point.latency_ms), 100 - up.percent(point.miou_percent)
        reach = _line(across.percent(point.low_ms), across.percent(point.high_ms), (y, y), "reach")
        dot = tag("circle", tag("title", _title(point)), cx=_percent(x), cy=_percent(y), r="6")
        text = f"{point.row}" + ("" if point.trusted else "?")
        place = {"x": _percent(x), "y": _percent(y), "dy": "1.6em" if index % 2 else "-0.8em"}
        yield tag("g", reach, dot, tag("text", text, **place, text_anchor="middle", class_="name"), class_=kind)


def _title(point: Point) -> Html:
    beaten = f"; beaten by {', '.join(map(str, point.beaten_by))}" if point.beaten_by else ""
    return escaped(f"{point.row}: {point.name}, {point.latency_ms:.4g} ms, {point.miou_percent:.2f} %{beaten}")


def legend() -> Html:
    """What the marks mean."""
    marks = [
        (tag("span", class_="dot best"), "no other is as fast and as accurate"),
        (tag("span", class_="dot beaten"), "another is at least as good in both"),
    ]
    said = "The number is the row of the table; with ? its latency is not to be trusted."
    lines = [tag("li", mark, " ", text) for mark, text in marks]
    reach = "The line through a dot: where the median lies with 95 % confidence."
    return tag("ul", join(lines), tag("li", said), tag("li", reach), class_="legend")


def _line(x1: float, x2: float, y: tuple[float, float], kind: str) -> Html:
    ends = {"x1": _percent(x1), "x2": _percent(x2), "y1": _percent(y[0]), "y2": _percent(y[1])}
    return tag("line", **ends, class_=kind)


def _percent(value: float) -> str:
    return f"{value:.2f}%"


def _round_step(least: float) -> float:
    """1, 2 or 5 times a power of ten, at least so large."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * 0.999)
