import tracemalloc

import numpy as np
import pytest

from edgeseg import compose as module
from edgeseg.bilinear import matrix
from edgeseg.compose import NONE_LABEL, axis_operator, compose, compose_scored, score_tiles
from edgeseg.placement import Placement


def placement(canvas, valid, original) -> Placement:
    return Placement(original, valid, canvas, False, "a test")


PLACES = [
    placement((64, 64), (64, 64), (64, 64)),
    placement((64, 96), (64, 85), (48, 64)),
    placement((64, 96), (61, 96), (131, 205)),
    placement((96, 64), (96, 33), (1, 1)),
    placement((64, 64), (1, 64), (3, 150)),
    placement((64, 64), (64, 64), (33, 37)),
]


def random_scene(queries=7, classes=11, cells=(16, 24), amplitude=3.0, seed=0):
    rng = np.random.default_rng(seed)
    logits = (rng.standard_normal((queries, *cells)) * amplitude).astype(np.float32)
    probs = np.exp(rng.standard_normal((queries, classes)) * 2)
    return logits, (probs / probs.sum(1, keepdims=True)).astype(np.float32)


def smooth_scene(**options):
    """Masks as a trained model makes them: large blobs, mostly far from the border between yes and no."""
    logits, probs = random_scene(**options)
    y, x = (np.linspace(-1, 1, side) for side in logits.shape[1:])
    centres = np.linspace(-1, 1, len(logits))[:, None, None]
    return (3 - 30 * np.abs(y[:, None] * 0.2 + x - centres)).astype(np.float32), probs


def bilinear(array, axis, size):
    """Naive float64 interpolation, one output at a time."""
    length = array.shape[axis]
    array = np.moveaxis(np.asarray(array, np.float64), axis, 0)
    rows = []
    for index in range(size):
        position = max((index + 0.5) * length / size - 0.5, 0.0)
        low = min(int(position), length - 1)
        part = position - low
        rows.append(array[low] * (1 - part) + array[min(low + 1, length - 1)] * part)
    return np.moveaxis(np.array(rows), 0, axis)


def naive_scores(logits, class_probs, place: Placement):
    masks = bilinear(bilinear(logits, 1, place.canvas[0]), 2, place.canvas[1])
    masks = masks[:, : place.valid[0], : place.valid[1]]
    masks = bilinear(bilinear(masks, 1, place.original[0]), 2, place.original[1])
    return np.einsum("qc,qhw->hwc", class_probs.astype(np.float64), 1 / (1 + np.exp(-np.maximum(masks, -99))))


def assert_labels(labels, scores):
    """Equal to the arg-max, except where the two best are closer than 1e-5."""
    assert labels.shape == scores.shape[:2]
    assert labels.dtype == np.uint16
    best = scores.max(2)
    taken = np.take_along_axis(scores, labels[..., None].astype(int), 2)[..., 0]
    assert (best - taken < 1e-5).all()


@pytest.mark.parametrize("scene", [random_scene, smooth_scene])
@pytest.mark.parametrize("place", PLACES, ids=lambda p: f"{p.valid}-{p.original}")
def test_labels_are_those_of_the_full_scores(scene, place):
    logits, probs = scene(cells=(place.canvas[0] // 4, place.canvas[1] // 4))
    assert_labels(compose(logits, probs, place).labels, naive_scores(logits, probs, place))


@pytest.mark.parametrize("place", PLACES, ids=lambda p: f"{p.valid}-{p.original}")
def test_scored_composition_gives_the_best_scores(place):
    logits, probs = random_scene(cells=(place.canvas[0] // 4, place.canvas[1] // 4))
    composed, scores = compose_scored(logits, probs, place), naive_scores(logits, probs, place)
    assert_labels(composed.labels, scores)
    assert composed.best is not None
    assert np.abs(composed.best - scores.max(2)).max() < 1e-5


def test_pruning_leaves_classes_out_and_labels_as_they_are(monkeypatch):
    place = placement((256, 256), (250, 256), (300, 311))
    logits, probs = smooth_scene(classes=200, cells=(64, 64), seed=3)
    pruned = compose(logits, probs, place)
    kept = [len(module._possible(t.cells, module._scene(logits, probs, place))) for t in tiles(logits, probs, place)]
    monkeypatch.setattr(module, "_possible", lambda cells, scene: np.arange(probs.shape[1]))
    assert np.mean(kept) < 50
    assert np.array_equal(pruned.labels, compose(logits, probs, place).labels)


def tiles(logits, probs, place):
    return list(module._tiles(module._scene(logits, probs, place), place.original))


def test_no_class_that_wins_somewhere_is_ever_pruned():
    for seed in range(40):
        logits, probs = random_scene(queries=4, classes=30, cells=(3, 3), amplitude=0.1 * 1.3**seed, seed=seed)
        place = placement((12, 12), (12, 12), (40, 40))
        winners = set(np.unique(naive_scores(logits, probs, place).argmax(2)))
        scene = module._scene(logits, probs, place)
        assert winners <= set(module._possible(logits.transpose(1, 2, 0), scene))


def test_threshold_makes_none_of_these():
    place = PLACES[1]
    logits, probs = random_scene()
    best = naive_scores(logits, probs, place).max(2)
    threshold = float(np.median(best))
    composed = compose_scored(logits, probs, place, threshold)
    clear = np.abs(best - threshold) > 1e-5
    assert np.array_equal((composed.labels == NONE_LABEL)[clear], (best < threshold)[clear])
    assert composed.areas.sum() == (composed.labels != NONE_LABEL).sum()


def test_areas_count_pixels_of_every_class():
    logits, probs = random_scene()
    composed = compose(logits, probs, PLACES[0])
    assert composed.areas.shape == (11,)
    assert composed.areas.sum() == composed.labels.size
    assert composed.areas[3] == (composed.labels == 3).sum()


def test_score_tiles_cover_the_image_once():
    place = PLACES[1]
    logits, probs = random_scene()
    scores = np.full((*place.original, 11), np.nan)
    for y, x, part in list(score_tiles(logits, probs, place)):
        assert np.isnan(scores[y, x]).all()
        scores[y, x] = part
    assert np.abs(scores - naive_scores(logits, probs, place)).max() < 1e-5


def test_equal_scores_give_the_first_class():
    logits, probs = random_scene()
    doubled = np.concatenate([probs, probs], 1)
    assert compose(logits, doubled, PLACES[0]).labels.max() < probs.shape[1]


def test_extreme_logits_give_no_warning():
    logits, probs = random_scene(amplitude=1e4)
    best = compose_scored(logits, probs, PLACES[1]).best
    assert best is not None
    assert best.max() <= probs.sum(0).max() + 1e-5


def test_logits_of_the_caller_stay_as_they_are():
    logits, probs = random_scene()
    before = logits.copy()
    compose(logits, probs, PLACES[0])
    compose_scored(logits, probs, PLACES[0])
    assert np.array_equal(logits, before)


def test_memory_does_not_grow_with_classes_times_pixels():
    logits, probs = random_scene(queries=20, classes=847, cells=(80, 80))
    place = placement((320, 320), (320, 320), (320, 320))
    tracemalloc.start()
    compose(logits, probs, place)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 20e6 < 320 * 320 * 847 * 4 / 10


@pytest.mark.torch
@pytest.mark.parametrize("place", PLACES, ids=lambda p: f"{p.valid}-{p.original}")
def test_axis_operators_are_torchs_two_resizes(place):
    import torch
    import torch.nn.functional as F

    logits, _ = random_scene(cells=(place.canvas[0] // 4, place.canvas[1] // 4))
    large = F.interpolate(torch.from_numpy(logits)[None], place.canvas, mode="bilinear")
    cropped = large[..., : place.valid[0], : place.valid[1]]
    wanted = F.interpolate(cropped, place.original, mode="bilinear")[0].numpy()
    sides = zip(logits.shape[1:], place.canvas, place.valid, place.original, strict=True)
    rows, columns = (axis_operator(*side) for side in sides)
    assert np.abs(rows @ logits @ columns.T - wanted).max() < 2e-5


def test_operator_rows_are_weighted_means():
    for length, outputs in ((5, 20), (20, 5), (1, 7), (7, 1)):
        operator = matrix(length, outputs, length / outputs)
        assert np.allclose(operator.sum(1), 1)
        assert (operator >= 0).all()
