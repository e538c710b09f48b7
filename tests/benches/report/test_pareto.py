from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.benches.report import read_results
from edgeseg.benches.report.pareto import Point, beats, fields, ranked
from edgeseg.benches.report.summary import summary_rows
from tests.benches.made import ENVIRONMENT, accuracy, latency, write


def point(row, latency_ms, miou):
    return Point(row, "a", latency_ms, latency_ms, latency_ms, miou, True)


def test_front_is_what_no_other_beats():
    found = ranked([point(1, 30, 40), point(2, 10, 30), point(3, 20, 29), point(4, 30, 35), point(5, 40, 40)])
    assert [(one.row, one.beaten_by) for one in found] == [(2, ()), (3, (2,)), (1, ()), (4, (1,)), (5, (1,))]


def test_points_that_are_alike_do_not_beat_each_other():
    assert not beats(point(1, 10, 30), point(2, 10, 30))
    assert beats(point(1, 10, 30), point(2, 10, 29))
    assert beats(point(1, 9, 30), point(2, 10, 30))


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_front_rises_and_every_other_point_is_beaten_by_one_of_it(values):
    found = ranked([point(row, *value) for row, value in enumerate(values)])
    front = [one for one in found if not one.beaten_by]
    assert front
    assert all(a.latency_ms <= b.latency_ms and a.miou_percent <= b.miou_percent for a, b in pairwise(front))
    assert all(any(beats(best, one) for best in front) for one in found if one.beaten_by)


@pytest.fixture
def drawn(tmp_path):
    return lambda *bodies: fields(summary_rows(read_results(write(tmp_path, *bodies))))


def rows_of(found):
    return [sorted(point.row for point in field.points) for field in found]


def test_engines_of_one_data_set_and_machine_are_in_one_chart(drawn):
    cpu = {"device_name": "CPU", "sdk": {"onnxruntime": "1.20"}, "device": "cpu-aarch64"}
    found = drawn(accuracy("a"), accuracy("b", 50.0), latency("a"), latency("b", **cpu))
    assert rows_of(found) == [[1, 2]]
    assert found[0].title == "camvid-11, 4 images; Orin Nano"


@pytest.mark.parametrize(
    "other",
    [
        [accuracy("b", dataset={"images": 3}), latency("b")],
        [accuracy("b", dataset={"split": "val"}), latency("b")],
        [accuracy("b", convention="mmseg"), latency("b")],
        [accuracy("b"), latency("b", environment=ENVIRONMENT | {"board": "AGX"})],
        [accuracy("b"), latency("b", environment=ENVIRONMENT | {"packages": {"numpy": "1.0"}})],
    ],
)
def test_what_is_not_comparable_is_in_another_chart(drawn, other):
    assert rows_of(drawn(accuracy("a"), latency("a"), *other)) == [[1], [2]]


def test_power_modes_are_not_mixed(drawn):
    slow = latency("b")
    slow["measurements"][0]["conditions"]["power_mode"] = "7W"
    assert rows_of(drawn(accuracy("a"), latency("a"), accuracy("b"), slow)) == [[1], [2]]
