"""The permutohedral filter against the sum over all pairs of pixels, and what the random field does with it."""

import numpy as np
import pytest

from edgeseg.densecrf import Kernels, Lattice, refine


def exact(features, values):
    apart = ((features[:, None] - features[None]) ** 2).sum(2)
    return np.exp(-0.5 * apart) @ values


@pytest.mark.parametrize("size", [2, 5])
def test_filter_is_near_the_sum_over_all_pairs(size):
    random = np.random.default_rng(0)
    place = random.random((600, 2)) * 6
    colours = place @ random.random((2, size - 2)) + random.random((600, size - 2)) / 2  # as in a photo, not all over
    features = np.concatenate([place, colours], 1).astype(np.float32)
    values = random.random((600, 3)).astype(np.float32)
    values[:, 1] = features[:, 0] > 3
    found, wanted = Lattice(features).filtered(values), exact(features, values)
    closeness = [np.corrcoef(found[:, k], wanted[:, k])[0, 1] for k in range(3)]  # up to a factor
    assert closeness[1] > 0.99
    assert min(closeness) > 0.93  # of noise, which the lattice's corners do not resolve


def test_point_alone_keeps_its_value():
    features = np.array([[0, 0], [100, 50]], np.float32)
    np.testing.assert_allclose(
        Lattice(features).normalised(np.array([[1, 0], [0, 1]], np.float32)), np.eye(2), atol=1e-5
    )


def scene():
    """Two halves of different colours, scored rightly but for a few pixels."""
    rgb = np.zeros((24, 32, 3), np.uint8)
    rgb[:, 16:] = 200
    scores = np.zeros((2, 24, 32), np.float32)
    scores[0, :, :16] = scores[1, :, 16:] = 1
    scores[:, 10, 4] = scores[:, 5, 25] = (0.4, 0.6)
    scores[:, 5, 25] = (0.6, 0.4)
    return scores, rgb


def test_strays_join_what_looks_like_them_and_edges_stay():
    scores, rgb = scene()
    found = refine(scores, rgb)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(found.argmax(0), np.repeat([0] * 16 + [1] * 16, 24).reshape(32, 24).T)


def test_without_kernels_the_scores_decide():
    scores, rgb = scene()
    found = refine(scores, rgb, Kernels(near_weight=0, far_weight=0))
    np.testing.assert_array_equal(found.argmax(0), scores.argmax(0))
