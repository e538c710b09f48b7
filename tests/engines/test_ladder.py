"""How far a tensor inside a graph is from the same tensor of the fp32 graph."""

import numpy as np
import pytest

from edgeseg.engines import ladder

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
    measured = ladder._distance(np.array(found, np.float32), np.array(wanted, np.float32))
    assert measured == pytest.approx(distance)


@pytest.mark.parametrize("most", [1, 2, 3, 5, 13, 25])
def test_fewest_is_the_smallest_that_passes_and_is_found_in_few_questions(most):
    for wanted in range(1, most + 2):
        asked: list[int] = []

        def passes(count, wanted=wanted, asked=asked):
            asked.append(count)
            return count >= wanted

        assert ladder.fewest(most, passes) == (wanted if wanted <= most else None)
        assert len(asked) == len(set(asked)) <= min(most, 2 * most.bit_length())
        assert wanted > 1 or asked == [1]
    assert ladder.fewest(0, lambda _: True) is None
