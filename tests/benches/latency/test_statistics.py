import numpy as np
import pytest

from edgeseg.benches.latency.statistics import median_ranks, summarise


def test_percentiles_of_a_known_list():
    found = summarise(list(range(101, 0, -1)))
    assert (found.p50_ms, found.p95_ms, found.p99_ms) == (51, 96, 100)
    assert (found.mean_ms, found.min_ms, found.max_ms) == (51, 1, 101)
    assert found.spread_percent == pytest.approx(100 * 50 / 51)


def test_one_run_is_all_there_is():
    found = summarise([7.0])
    assert {found.p50_ms, found.p99_ms, found.min_ms, found.p50_low_ms, found.p50_high_ms} == {7.0}
    assert found.spread_percent == 0


def test_stage_that_takes_no_time_has_no_spread():
    assert summarise([0.0, 0.0]).spread_percent == 0


@pytest.mark.parametrize("count", [10, 31, 100])
def test_interval_covers_the_median_of_a_skewed_latency_as_often_as_it_says(count):
    random = np.random.Generator(np.random.PCG64(count))
    samples = np.sort(random.exponential(size=(4000, count)), axis=1)
    first, last = median_ranks(count)
    covered = (samples[:, first] <= np.log(2)) & (np.log(2) <= samples[:, last])
    assert 0.945 <= covered.mean() <= 0.985
