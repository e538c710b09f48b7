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
