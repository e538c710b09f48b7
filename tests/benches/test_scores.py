"""Counts and scores: against a slow count, against what both evaluators' own packages said, and by hand."""

import json
import math

import numpy as np
import pytest

from edgeseg.benches.accuracy import score
from edgeseg.benches.accuracy.count import Count, Worst, tally


def slow_confusion(pairs, classes):
    """Pixel by pixel; labels below zero are not counted."""
    matrix = np.zeros((classes, classes + 1), np.int64)
    for labels, predictions in pairs:
        for label, prediction in zip(labels.ravel().tolist(), predictions.ravel().tolist(), strict=True):
            if label >= 0:
                matrix[label, prediction] += 1
    return matrix


def count_of(pairs, classes):
    count = Count(np.zeros((classes, classes + 1), np.int64))
    for key, (labels, predictions) in enumerate(pairs):
        count = count.plus(tally(str(key), labels, predictions, count.matrix.shape, True))
    return count


@pytest.mark.parametrize("classes", [1, 2, 11, 847])
def test_count_is_that_of_a_loop_over_pixels(classes):
    rng = np.random.default_rng(classes)
    sizes = [(7, 9), (1, 1), (12, 5)]
    pairs = [(rng.integers(-1, classes, size), rng.integers(0, classes + 1, size).astype(np.uint16)) for size in sizes]
    found = count_of(pairs, classes)
    assert found.matrix.dtype == np.int64
    assert np.array_equal(found.matrix, slow_confusion(pairs, classes))
    assert found.done == 3


def test_an_image_without_scored_pixels_counts_nothing():
    found = count_of([(np.full((2, 2), -1), np.zeros((2, 2), int))], 3)
    assert (found.matrix.sum(), found.done, found.worst) == (0, 1, None)


def test_worst_image_is_the_first_with_the_smallest_share():
    right = np.zeros((2, 4), int)
    pairs = [(right, right), (right, np.resize([0, 1], (2, 4))), (right[:1], np.resize([1, 0], (1, 4)))]
    assert count_of(pairs, 2).worst == Worst("1", 4, 8)


def test_counting_does_not_change_what_was_counted_before():
    first = count_of([(np.zeros((2, 2), int), np.zeros((2, 2), int))], 2)
    second = first.plus(tally("b", np.ones((2, 2), int), np.ones((2, 2), int), (2, 3), False))
    assert (first.matrix.sum(), second.matrix.sum(), second.inexact) == (4, 8, 1)


def oracle(shared):
    folder = shared / "oracle/evaluators"
    facts = json.loads((folder / "evaluators.json").read_text())
    with np.load(folder / "evaluators.npz") as arrays:
        for name, fact in facts.items():
            images = range(fact["images"])
            pairs = []
            for i in images:
                labels = arrays[f"{name}_gt_{i}"].astype(np.int32)
                labels[labels == fact["ignore"]] = -1
                pairs.append((labels, arrays[f"{name}_pred_{i}"]))
            yield name, fact, count_of(pairs, fact["classes"]).matrix


def same(found, expected, **tolerance):
    """None stands for NaN."""
    values = np.array([math.nan if value is None else value for value in np.ravel(np.array(expected, object))])
    np.testing.assert_allclose(np.ravel(found), values, **tolerance)


def test_scores_are_detectron2s_to_the_last_digit(shared):
    names = set()
    for name, fact, matrix in oracle(shared):
        found, expected = score(matrix, "detectron2"), fact["detectron2"]
        for value, key in (
            (found.miou, "mIoU"),
            (found.fwiou, "fwIoU"),
            (found.mean_accuracy, "mACC"),
            (found.pixel_accuracy, "pACC"),
            (found.iou, "IoU"),
        ):
            same(value, expected[key], rtol=0, atol=0)
        names.add(name)
    assert {"absent_in_gt_but_predicted", "all_ignored_image", "labels847_16bit"} <= names


def test_scores_are_mmsegmentations_up_to_float32(shared):
    for _, fact, matrix in oracle(shared):
        found, expected = score(matrix, "mmseg"), fact["mmsegmentation"]
        for value, key in (
            (found.miou, "mIoU"),
            (found.pixel_accuracy, "aAcc"),
            (found.mean_accuracy, "mAcc"),
            (found.iou, "IoU"),
        ):
            same(value, expected[key], rtol=0, atol=1e-4)


# labels a: 6 right, 2 as b; b: 3 right, 1 as c, 1 none of these; c never labelled
HAND = np.array([[6, 2, 0, 0], [0, 3, 1, 1], [0, 0, 0, 0]])


@pytest.mark.parametrize(("convention", "third"), [("detectron2", []), ("mmseg", [0.0])])
def test_conventions_differ_in_a_class_that_is_only_predicted(convention, third):
    found = score(HAND, convention)
    ious = [6 / 8, 3 / 7, *third]
    same(found.iou, [*(100 * v for v in ious), *[None] * (3 - len(ious))], rtol=1e-15)
    assert found.miou == pytest.approx(100 * sum(ious) / len(ious))
    assert found.pixel_accuracy == pytest.approx(100 * 9 / 13)
    assert found.mean_accuracy == pytest.approx(100 * (6 / 8 + 3 / 5) / 2)
    assert found.fwiou == pytest.approx(100 * (8 / 13 * 6 / 8 + 5 / 13 * 3 / 7))


def test_none_of_these_is_a_miss_and_no_class():
    found = score(np.array([[1, 0, 3], [0, 4, 0]]), "detectron2")
    assert found.iou.tolist() == [25.0, 100.0]
    assert found.pixel_accuracy == 62.5


def test_seen_and_unseen_classes_are_averaged_apart_and_the_background_with_neither():
    found = score(HAND, "mmseg", [True, None, False])
    assert (found.seen_miou, found.unseen_miou) == (75.0, 0.0)
    assert math.isnan(score(HAND, "detectron2", [True, True, False]).unseen_miou)
    assert math.isnan(score(HAND, "mmseg").seen_miou)
