"""In which block a graph goes wrong: how far its tensors are from those of the fp32 graph, and what becomes of it."""

import numpy as np
import pytest

from edgeseg.engines import blame

pytestmark = pytest.mark.onnx

INF = np.inf


@pytest.mark.parametrize(
    ("found", "wanted", "distance"),
    [
        ([3.0, 4.0], [3.0, 4.0], 0.0),
        ([3.0, 4.0], [0.0, 0.0], 5e30),
        ([3.0, 5.0], [3.0, 4.0], 0.2),
        ([3.0, np.nan], [3.0, 4.0], INF),
        ([3.0, INF], [3.0, 4.0], INF),
        ([3.0, -65504.0], [3.0, -INF], INF),
        ([3.0, 5.0, -INF], [3.0, 4.0, -INF], 0.2),  # a mask
    ],
)
def test_distance_is_relative_and_an_infinity_counts_only_where_the_other_has_none(found, wanted, distance):
    measured = blame._distance(np.array(found, np.float32), np.array(wanted, np.float32))
    assert measured == pytest.approx(distance)


def test_errors_that_only_add_up_are_left_as_they_were():
    own = [0.03, 0.04, 0.12]
    assert blame.carried(own, [0.03, 0.05, 0.13], [1.0, 1.0, 1.0]) == pytest.approx(own)


def test_error_that_later_blocks_enlarge_counts_more_than_theirs():
    """The second block makes three times of what comes in, the third twice."""
    errors = [0.01, np.hypot(0.03, 0.01), np.hypot(2 * np.hypot(0.03, 0.01), 0.01)]
    assert blame.carried([0.01, 0.01, 0.01], errors, [1.0, 1.0, 1.0]) == pytest.approx([0.06, 0.02, 0.01])


def test_error_in_a_stream_that_grows_counts_less_and_never_nothing():
    assert blame.carried([0.01, 0.01], [0.01, 0.01], [1.0, 4.0]) == pytest.approx([0.0025, 0.01])


def test_block_that_is_no_number_is_the_worst_and_says_nothing_of_the_others():
    assert blame.carried([0.01, INF, 0.02], [0.01, INF, INF], [1.0, 1.0, 1.0]) == [0.01, INF, 0.02]


def test_blocks_before_which_nothing_is_wrong_are_weighed_too():
    assert blame.carried([0.0, 0.0], [0.0, 0.0], [0.0, 0.0]) == [0.0, 0.0]
