"""Intervals hold what they claim to, on samples whose truth is known; and come out the same each time."""

import numpy as np
import pytest

from edgeseg.benches.compare import bootstrap
from edgeseg.benches.compare.bootstrap import blocks, ratio_of_medians

TRUTH = 1.1


def runs(seed, count, memory=0.0):
    """Latencies around 10 ms whose neighbours are alike by so much."""
    random = np.random.default_rng(seed)
    noise = np.empty(count)
    noise[0] = random.standard_normal()
    for index in range(1, count):
        noise[index] = memory * noise[index - 1] + np.sqrt(1 - memory**2) * random.standard_normal()
    return 10 + 0.5 * noise


def coverage(memory, trials=150, count=60):
    found = [
        ratio_of_medians(runs(seed, count, memory), TRUTH * runs(seed + 10_000, count, memory))
        for seed in range(trials)
    ]
    return sum(one.holds(TRUTH) for one in found) / trials


@pytest.fixture
def fewer(monkeypatch):
    monkeypatch.setattr(bootstrap, "RESAMPLES", 600)


def test_interval_holds_the_true_ratio_as_often_as_it_says(fewer):
    assert 0.9 <= coverage(memory=0.0) <= 1.0


def test_blocks_keep_the_promise_better_where_neighbours_are_alike(fewer, monkeypatch):
    with_blocks = coverage(memory=0.6)
    monkeypatch.setattr(bootstrap, "blocks", lambda size, count, random: random.integers(0, size, (count, size)))
    alone = coverage(memory=0.6)
    assert alone + 0.05 < with_blocks


def test_ratio_is_that_of_the_medians_and_always_the_same():
    a, b = runs(1, 30), runs(2, 45) * 2
    found = ratio_of_medians(a, b)
    assert found == ratio_of_medians(a.tolist(), b.tolist())
    assert found.value == np.median(b) / np.median(a)
    assert found.low < found.value < found.high


def test_one_run_each_gives_no_width_and_zero_no_ratio():
    found = ratio_of_medians([2.0], [3.0])
    assert (found.low, found.value, found.high) == (1.5, 1.5, 1.5)
    assert ratio_of_medians([0.0, 0.0], [1.0, 2.0]) is None
    assert ratio_of_medians([0.0, 0.0, 1.0], [1.0, 2.0, 3.0]) is None


@pytest.mark.parametrize(("size", "length"), [(1, 1), (27, 3), (1000, 10)])
def test_blocks_are_neighbours_and_every_run_is_drawn_as_often(size, length):
    drawn = blocks(size, 3000, np.random.default_rng(0))
    assert drawn.shape == (3000, size)
    steps = np.diff(drawn, axis=1) % size
    assert (np.delete(steps, np.s_[length - 1 :: length], axis=1) == 1 % size).all()
    counts = np.bincount(drawn.ravel(), minlength=size)
    assert counts.std() / counts.mean() < 0.1
