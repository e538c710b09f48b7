"""Class maps to labels: held against the authors' code, and case by case."""

import numpy as np
import pytest

from edgeseg.compose import NONE_LABEL
from edgeseg.pipelines.pnp_maps import ClassMaps, blur_matrix, corner_matrix, cut
from edgeseg.pipelines.pnp_settings import Settings
from edgeseg.placement import Placement


def made(maps, size, names=None, **settings):
    """Class maps, and the labels at an image's size."""
    maps = np.asarray(maps, np.float32)
    names = names or tuple(map(str, range(len(maps))))
    place = Placement(size, size, (336, 336), True, None)
    return ClassMaps(maps, np.arange(len(maps)), names, place, Settings(**settings))


@pytest.mark.parametrize(
    ("data", "blur", "background"),
    [("voc", "noblur", "always"), ("voc", "blur", "always"), ("psc", "blur", "few")],
)
def test_labels_are_those_of_the_authors_code(shared, data, blur, background):
    golden = np.load(shared / "oracle/pnp/single0.npz")
    wanted = golden[f"labels_{data}_{blur}_aggregate_0"]
    maps = golden["class_map_aggregate_0"]
    settings = {"blur": 0.05 if blur == "blur" else 0.0, "background": background}
    found = made(maps, wanted.shape, **settings).compose().labels
    numbers = {0: 9, 1: 15, 2: 16, 3: 17, NONE_LABEL: 0}  # chair, person, pottedplant, sheep in VOC
    same = np.vectorize(numbers.get)(found) == wanted
    assert same.mean() >= 0.9999  # at a border between two classes rounding decides


def test_cells_below_a_share_of_the_range_are_zero():
    maps = np.array([[[1.0, 1.9, 2.0, 3.0]]], np.float32)
    np.testing.assert_array_equal(cut(maps, 0.5), [[[0, 0, 2, 3]]])


def test_interpolation_keeps_the_corners():
    found = corner_matrix(3, 5)
    np.testing.assert_allclose(found @ [0, 2, 8], [0, 1, 2, 5, 8])


def test_blur_is_scipys():
    ndimage = pytest.importorskip("scipy.ndimage")
    plane = np.random.default_rng(0).random((17, 40)).astype(np.float32)
    found = blur_matrix(17, 6.0) @ plane @ blur_matrix(40, 6.0).T  # the kernel is longer than the axis
    np.testing.assert_allclose(found, ndimage.gaussian_filter(plane, 6.0), atol=1e-6)


MAPS = [[[0, 0, 0], [0, 0, 4]], [[0, 0, 0], [2, 0, 0]]]


@pytest.mark.parametrize(("background", "label"), [("always", NONE_LABEL), ("few", NONE_LABEL), ("never", 0)])
def test_pixels_without_any_map_are_background_as_the_rule_says(background, label):
    labels = made(MAPS, (2, 3), blur=0.0, background=background).compose().labels
    assert labels.tolist() == [[label, label, label], [1, label, 0]]


def test_three_classes_are_not_few():
    labels = made([*MAPS, [[1, 0, 0], [0, 0, 0]]], (2, 3), blur=0.0, background="few").compose().labels
    assert labels.tolist() == [[2, 0, 0], [1, 0, 0]]


def test_labels_are_numbers_of_the_whole_class_list():
    maps = made(MAPS, (2, 3), ("a", "b", "c"), blur=0.0)
    some = ClassMaps(maps.maps, np.array([2, 0]), maps.names, maps.placement, maps.settings)
    ((_, _, scores),) = some.scores()
    assert scores[1].tolist() == [[2, 0, 0], [0, 0, 0], [0, 0, 4]]
    composed = some.compose()
    assert composed.labels[1].tolist() == [0, NONE_LABEL, 2]
    assert composed.areas.tolist() == [1, 0, 1]


def test_threshold_takes_away_what_is_below():
    labels = made(MAPS, (2, 3), blur=0.0).compose(3.0).labels
    assert labels[1].tolist() == [NONE_LABEL, NONE_LABEL, 0]


@pytest.mark.parametrize("blur", [0.0, 0.05])
def test_scores_are_what_the_labels_are_made_of(blur):
    maps = np.random.default_rng(1).random((3, 4, 5)).astype(np.float32)
    one = made(maps, (150, 40), blur=blur, background="never")
    scores = np.concatenate([tile for _, _, tile in one.scores()])
    assert scores.shape == (150, 40, 3)
    np.testing.assert_array_equal(scores.argmax(2), one.compose().labels)
