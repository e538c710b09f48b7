import re

import pytest

from edgeseg.benches.report.chart import chart, latency_axis, linear_axis, log_axis
from edgeseg.benches.report.pareto import Field, Point, ranked


def point(row, latency_ms, miou, trusted=True):
    return Point(row, f"engine <{row}>", latency_ms, latency_ms * 0.9, latency_ms * 1.1, miou, trusted)


@pytest.mark.parametrize(
    ("values", "ticks"),
    [([30.0, 34.0], (30, 31, 32, 33, 34)), ([38.0, 38.0], (37.4, 37.6, 37.8, 38, 38.2, 38.4, 38.6))],
)
def test_linear_ticks_are_round_and_the_values_in_the_middle(values, ticks):
    axis = linear_axis(values)
    assert axis.ticks == pytest.approx(ticks)
    assert (axis.percent(values[0]) + axis.percent(values[-1])) / 2 == pytest.approx(50)


def test_logarithmic_axis_gives_equal_factors_equal_distances():
    axis = log_axis([10.0, 1000.0])
    places = [axis.percent(value) for value in (10, 100, 1000)]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1])
    assert axis.ticks == pytest.approx((10, 20, 50, 100, 200, 500, 1000))
    assert log_axis([1.0, 1e5]).ticks == pytest.approx((1, 10, 100, 1e3, 1e4, 1e5))


def test_axis_is_logarithmic_only_where_latencies_are_far_apart():
    assert not latency_axis([point(1, 10, 1), point(2, 50, 2)]).logarithmic
    assert latency_axis([point(1, 10, 1), point(2, 500, 2)]).logarithmic
    assert latency_axis([point(1, 0.0, 1), point(2, 500, 2)]).percent(0.0) >= 0


def test_points_are_marked_by_more_than_colour():
    text = chart(Field("here", ranked([point(1, 10, 30), point(2, 20, 20), point(3, 30, 40, trusted=False)])))
    groups = re.findall(r'<g class="(\w+)">.*?<text[^>]*>([^<]*)</text></g>', text)
    assert groups == [("best", "1"), ("beaten", "2"), ("best", "3?")]
    assert "2: engine &lt;2&gt;, 20 ms, 20.00 %; beaten by 1" in text


def test_chart_says_what_it_shows():
    text = chart(Field("here", ranked([point(1, 10, 30), point(2, 20, 20)])))
    label = re.search(r'aria-label="([^"]*)"', text)
    assert label
    assert label[1] == "mIoU against latency. On the front: engine &lt;1&gt;: 10 ms, 30.00 %"
