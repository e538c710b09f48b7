from itertools import chain, cycle, repeat

import pytest

from edgeseg.benches.latency import Effort
from edgeseg.benches.latency import effort as module
from edgeseg.benches.latency.effort import LEAST_RUNS, MOST_RUNS, WARM_LEAST_S, WARM_MOST_RUNS, run, stable, warm_up


@pytest.fixture
def clock(monkeypatch):
    """A clock that only a run moves on: `clock(latencies)` gives a run that takes the next of them."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    def once(latencies_ms):
        left = iter(latencies_ms)

        def call():
            took = next(left)
            now[0] += took / 1e3
            return {"end_to_end": took, "graphs": took / 2}

        return call

    return once


def test_warm_up_goes_on_until_the_latency_is_stable(clock):
    found = warm_up(clock(chain([900, 700, 500, 400, 300], repeat(200))), Effort())
    # 300, 200, 200 against 700, 500, 400 is far off; three of 200 and 400, 300, 200 still are; then six are alike.
    assert (found.runs, found.settled) == (10, True)
    assert found.elapsed_s == pytest.approx(3.8)


def test_warm_up_lasts_half_a_second_at_least(clock):
    found = warm_up(clock(repeat(10)), Effort())
    assert (found.runs, found.settled) == (50, True)


def test_runs_too_short_for_half_a_second_settle_with_the_last_that_are_allowed(clock):
    found = warm_up(clock(chain([9, 5, 3], repeat(1))), Effort())
    assert (found.runs, found.settled) == (WARM_MOST_RUNS, True)
    assert found.elapsed_s < WARM_LEAST_S


def test_latency_that_never_settles_is_given_up(clock):
    growing = (1000 * 1.05**number for number in range(1000))
    found = warm_up(clock(growing), Effort(warm_most_s=20))
    assert not found.settled
    assert 20 <= found.elapsed_s < 24
    short = warm_up(clock(cycle([1, 1, 1, 2, 2, 2])), Effort())
    assert (short.runs, short.settled) == (WARM_MOST_RUNS, False)


@pytest.mark.parametrize(
    ("totals", "expected"),
    [([1] * 5, False), ([1] * 6, True), ([1, 1, 1, 1.02, 1.02, 1.02], True), ([1, 1, 1, 1.04, 1.04, 1.04], False)],
)
def test_stable_compares_the_last_three_with_the_three_before(totals, expected):
    assert stable(totals) is expected


def reported(clock, latencies, effort):
    shown: list[tuple[int, int]] = []
    samples, elapsed_s = run(clock(latencies), effort, lambda done, total: shown.append((done, total)))
    return samples, elapsed_s, shown


def test_number_of_runs_is_kept_exactly(clock):
    samples, elapsed_s, shown = reported(clock, repeat(100), Effort(runs=4, seconds=0))
    assert samples == {"end_to_end": [100] * 4, "graphs": [50] * 4}
    assert elapsed_s == pytest.approx(0.4)
    assert shown == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_time_is_kept_but_for_too_few_or_too_many_runs(clock):
    assert len(reported(clock, repeat(125), Effort(seconds=5))[0]["graphs"]) == 40
    assert len(reported(clock, repeat(9000), Effort(seconds=5))[0]["graphs"]) == LEAST_RUNS
    assert len(reported(clock, repeat(1), Effort(seconds=50))[0]["graphs"]) == MOST_RUNS


def test_progress_never_passes_its_end(clock):
    for done, total in reported(clock, repeat(2000), Effort(seconds=5))[2]:
        assert done <= total
