"""What photos add up to."""

import numpy as np
import pytest

from edgeseg.calibration.sensitivity.score import row, total

EXACT = np.array([[0, 1], [2, 2]], np.uint16)


def test_labels_are_counted_over_all_photos():
    other = np.array([[0, 1], [2, 0]], np.uint16)
    rows = [row(other, EXACT, {}, None), row(EXACT, EXACT, {}, None)]
    assert total(rows, 3).different_percent == pytest.approx(100 / 8)
    assert total(rows, 3).miou_percent is None


def test_no_labels_differ_everywhere_and_hit_no_class():
    score = total([row(None, EXACT, {}, EXACT.astype(int))], 3)
    assert score.different_percent == 100
    assert score.miou_percent == 0


def test_errors_are_of_the_photos_together():
    rng = np.random.default_rng(0)
    exact = rng.standard_normal((2, 5, 4)).astype(np.float32)
    found = exact + rng.standard_normal(exact.shape).astype(np.float32) / 10
    rows = [row(EXACT, EXACT, {"t": (found[i], exact[i])}, None) for i in range(2)]
    error = total(rows, 3).tensors["t"]
    assert error.relative == pytest.approx(np.linalg.norm(found - exact) / np.linalg.norm(exact))
    lengths = np.linalg.norm(found) * np.linalg.norm(exact)
    assert error.cosine == pytest.approx(float((found * exact).sum()) / lengths)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_tensor_that_is_not_finite_is_the_worst(value):
    exact = np.ones(4, np.float32)
    pairs = {"bad": (np.array([1, 1, 1, value], np.float32), exact), "off": (2 * exact, exact)}
    score = total([row(EXACT, EXACT, pairs, None)], 3)
    assert score.worst[0] == "bad"
    assert (score.tensors["bad"].cosine, score.tensors["bad"].relative) == (-1, None)
    assert score.tensors["off"].relative == 1


def test_zeros_equal_zeros():
    zeros = np.zeros(3, np.float32)
    error = total([row(EXACT, EXACT, {"t": (zeros, zeros)}, None)], 3).tensors["t"]
    assert (error.cosine, error.relative) == (1, 0)


def test_miou_is_the_mean_over_labelled_classes():
    truth = np.array([[0, 0], [2, -1]])
    found = np.array([[0, 1], [2, 2]], np.uint16)
    score = total([row(found, EXACT, {}, truth)], 4)
    assert score.miou_percent == pytest.approx(100 * (1 / 2 + 1) / 2)  # class 1 shows in no label, 3 nowhere
