"""How many blocks a repair lifts."""

import pytest

from edgeseg.engines import ladder

pytestmark = pytest.mark.onnx


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
