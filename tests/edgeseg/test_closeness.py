"""How close a tensor is to torch's samples: row by row, where each row follows from a thresholded mask."""

import numpy as np
import pytest

from edgeseg.closeness import SAMPLES, cosine_of_rows, difference, sample


def embeddings(rows, width):
    return np.random.default_rng(0).standard_normal((1, rows, width)).astype(np.float32)


@pytest.mark.parametrize("width", [384, 512, 768])  # every value is kept, every 4th, every 5th across the rows' ends
def test_few_rows_may_be_far_off_but_not_many(width):
    wanted = embeddings(32 if width == 384 else 100, width)
    found = wanted.copy()
    count = wanted.shape[1]
    found[0, : count // 5] *= -1
    assert cosine_of_rows(found, sample(wanted)) == pytest.approx(1)
    assert difference(found, sample(wanted))["cosine"] < 0.7
    found[0, : count // 3] = -wanted[0, : count // 3]
    assert cosine_of_rows(found, sample(wanted)) == pytest.approx(-1)


def test_what_is_wrong_in_every_row_is_seen():
    wanted = embeddings(100, 512)
    found = wanted + 0.1 * np.roll(wanted, 1, axis=2)
    assert cosine_of_rows(found, sample(wanted)) == pytest.approx(difference(found, sample(wanted))["cosine"], abs=5e-3)
    assert cosine_of_rows(found, sample(wanted)) < 0.9975


def test_a_row_of_zeros_is_equal_to_zeros_alone():
    wanted, zeros = embeddings(2, 8), np.zeros((1, 2, 8), np.float32)
    assert cosine_of_rows(zeros, sample(zeros)) == 1
    assert cosine_of_rows(zeros, sample(wanted)) == 0
    assert cosine_of_rows(wanted, sample(zeros)) == 0


def test_rows_without_a_sample_do_not_count_as_right():
    wanted = np.ones((8 * SAMPLES, 1), np.float32)
    assert cosine_of_rows(wanted, sample(wanted)) == 1
    assert cosine_of_rows(-wanted, sample(wanted)) == -1
