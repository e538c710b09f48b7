import numpy as np
import pytest

from edgeseg.calibration.histogram import BINS, best_range, count, error, is_finite, percentile


def values(kind, size=200_000, seed=0):
    random = np.random.default_rng(seed)
    drawn = random.standard_normal(size).astype(np.float32)
    return {
        "normal": drawn,
        "tiny": drawn * 1e-20,
        "huge": drawn * 1e20,
        "heavy": drawn**5,
        "half zero": drawn.clip(0),
    }[kind]


KINDS = ["normal", "tiny", "huge", "heavy", "half zero"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("percent", [50.0, 99.9, 99.99])
def test_percentile_is_numpys_to_the_width_of_a_bin(kind, percent):
    exact = np.percentile(np.abs(values(kind)), percent, method="inverted_cdf")
    found = percentile(count(values(kind)), percent)
    assert exact <= found <= exact * (1 + 2**-7) or exact == 0


@pytest.mark.parametrize("kind", KINDS)
def test_every_value_is_counted_once_and_sums_of_histograms_are_histograms_of_both(kind):
    parts = [values(kind, 1000, seed).reshape(10, 100) for seed in (1, 2)]
    whole = count(np.concatenate(parts))
    assert whole.sum() == 2000
    assert np.array_equal(count(parts[0]) + count(parts[1]), whole)
    assert whole.shape == (BINS,)


def test_a_tensor_larger_than_one_chunk_is_counted_whole():
    assert count(np.ones((3, 1 << 20), np.float32)).sum() == 3 << 20


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_noticed(bad):
    assert is_finite(count(np.array([0, 1, -1], np.float32)))
    assert not is_finite(count(np.array([0, 1, bad], np.float32)))


@pytest.mark.parametrize("limit", [0.5, 2.0, 4.0])
def test_error_is_that_of_rounding_and_clipping(limit):
    x = values("normal")
    step = limit / 127
    exact = np.square(np.clip(np.rint(x / step), -127, 127) * step - x).mean()
    assert error(count(x), limit, 127) == pytest.approx(exact, rel=0.02)


def test_range_leaves_one_outlier_out_and_keeps_what_is_even():
    even = np.linspace(-3, 3, 100_001, dtype=np.float32)
    assert best_range(count(even), 3.0, 127) == (3.0, "max")
    with_outlier = np.append(values("normal", 1_000_000), np.float32(1000))
    limit, name = best_range(count(with_outlier), 1000.0, 127)
    assert limit < 6
    assert name in ("99.99", "99.999")


def test_range_of_zeros_is_zero():
    assert best_range(count(np.zeros(10, np.float32)), 0.0, 127) == (0.0, "max")
