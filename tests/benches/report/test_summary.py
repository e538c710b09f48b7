import pytest

from edgeseg.benches.report import read_results
from edgeseg.benches.report.summary import notes, summary_rows, summary_table
from tests.benches.made import accuracy, count, engine, latency, measurement, model, write


@pytest.fixture
def rows(tmp_path):
    return lambda *bodies: summary_rows(read_results(write(tmp_path, *bodies)))


def numbers(found):
    return [tuple(source.number for source in row.sources) for row in found]


def test_results_of_the_same_engines_share_a_row(rows):
    found = rows(latency("b"), accuracy("a"), model("a"), latency("a"), accuracy("b"))
    assert numbers(found) == [(5, 1), (2, 4, 3)]


@pytest.mark.parametrize("other", [{"backend": "onnxruntime"}, {"precision": "int8"}, {"engines_sha256": "f" * 64}])
def test_results_of_other_engines_do_not(rows, other):
    assert numbers(rows(accuracy(), latency(**other))) == [(1,), (2,)]


def test_what_names_no_engines_is_in_no_row(rows):
    assert rows(count()) == []


def test_each_data_set_and_each_canvas_has_its_row(rows):
    bodies = accuracy(), accuracy(dataset={"name": "voc-20"}), latency(), latency(canvas="384x480")
    assert numbers(rows(*bodies)) == [(1, 3), (1, 4), (2, 3), (2, 4)]


def test_accuracy_of_one_canvas_is_not_joined_with_the_latency_of_another(rows):
    assert numbers(rows(accuracy(canvas="384x480"), latency())) == [(1,), (2,)]


def test_measurement_with_the_nearest_number_of_classes_is_taken_and_said(rows):
    sweep = [measurement([value] * 3, classes) for classes, value in ((1, 5.0), (4, 7.0), (150, 9.0))]
    batch = measurement([1.0] * 3, 3, batch=2)
    (row,) = found = rows(accuracy(), latency(measurements=[*sweep, batch]))
    assert row.total["p50_ms"] == 7.0
    assert "row 1: scored with 3 classes, timed with 4" in list(notes(found))


def test_notes_say_what_is_included_once_and_doubts_by_row(rows):
    doubtful = latency("b", measurements=[measurement([1.0, 2.0, 3.0], reasons=["it drifted"])])
    found = list(notes(rows(accuracy("a"), latency("a"), doubtful)))
    assert found == [
        "mIoU is the mean over classes by the rules of detectron2's SemSegEvaluator",
        "p50, p95 and p99 are all of end_to_end",
        "row 2: the latency is not to be trusted because it drifted",
    ]


def test_table_has_a_dash_where_nothing_was_measured(rows):
    (row,) = summary_table(rows(accuracy(miou=None))).rows
    assert [cell.text for cell in row] == [
        *("1", "model-a", "fp16", "–", "–", "–", "–", "–", "tensorrt sm87-trt10.3.0", "camvid-11 test, 4 images"),
        *("–", "–", "–", "–", "–", "[1]"),
    ]


def test_costs_are_those_of_the_graphs_that_run_for_each_image(rows):
    (row,) = summary_table(rows(model())).rows
    assert [cell.text for cell in row[-3:]] == ["3.0", "2.0", "[1]"]
    assert engine()["model"] in row[1].text


def test_what_differs_between_rows_is_said_of_each(rows):
    found = list(notes(rows(accuracy("a"), accuracy("b", convention="mmseg"), accuracy("c"))))
    title = "mIoU is the mean over classes by the rules of"
    assert found == [f"rows 1, 3: {title} detectron2's SemSegEvaluator", f"row 2: {title} mmsegmentation's IoUMetric"]
