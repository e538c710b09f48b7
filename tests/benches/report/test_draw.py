import base64
import io

import numpy as np
import pytest
from PIL import Image

from edgeseg.benches.report.draw import LONG_SIDE, draw

NAMES = ("road", "car", "sky")
RGB = np.full((120, 160, 3), 200, np.uint8)
LABELS = np.zeros((120, 160), np.int32)
LABELS[:, 80:] = 2
LABELS[100:] = -1
PREDICTED = np.zeros((120, 160), np.int32)
PREDICTED[:, 120:] = 2


@pytest.fixture(scope="module")
def panels():
    picture = draw("a", RGB, LABELS, PREDICTED, NAMES)
    return {name: pixels(uri) for name, uri in picture.panels}


def pixels(uri):
    kind, data = uri.split(",", 1)
    assert kind == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int)


def test_errors_are_striped_what_is_right_is_pale_and_what_is_not_scored_dark(panels):
    right, wrong, unscored = (
        panels["errors"][part] for part in (np.s_[20:80, 10:60], np.s_[20:80, 90:110], np.s_[108:])
    )
    assert right.min() > 200
    assert np.ptp(right) < 20
    assert np.ptp(wrong[..., 0]) > 100  # light and dark stripes: not by colour alone
    assert (wrong[..., 0] - wrong[..., 1]).mean() > 80
    assert unscored.max() < 80


def test_maps_have_the_colours_of_the_classes_and_their_numbers(panels):
    labels, predicted = panels["labels"], panels["prediction"]
    assert np.abs(labels[10:30, 5:20] - predicted[10:30, 5:20]).max() < 20
    assert np.abs(labels[10:30, 90:110] - predicted[10:30, 90:110]).max() > 60
    middle = labels[40:60, 30:50]  # the number of the left half, white with a black rim
    assert (middle.max(), middle.min()) > (240, 0)
    assert middle.min() < 60


def test_classes_are_listed_with_their_shares_the_largest_first():
    entries = draw("a", RGB, LABELS, PREDICTED, NAMES).entries
    found = [(one.label, one.name, round(one.labelled, 3), round(one.predicted, 3)) for one in entries]
    assert found == [(0, "road", 0.5, 0.75), (2, "sky", 0.5, 0.25)]


def test_large_photo_becomes_a_small_picture():
    size = (1200, 2000)
    random = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    labels = np.zeros(size, np.int32)
    uris = [uri for _, uri in draw("a", random, labels, labels, NAMES).panels]
    assert pixels(uris[0]).shape == (240, LONG_SIDE, 3)
    assert sum(map(len, uris)) < 2**18


def test_prediction_of_none_of_the_classes_is_dark_and_wrong():
    none = np.full_like(PREDICTED, len(NAMES))
    found = {name: pixels(uri) for name, uri in draw("a", RGB, LABELS, none, NAMES).panels}
    assert found["prediction"].max() < 80
    assert found["errors"][:90, :, 0].max() > 180
    assert found["errors"][:90, :, 1].max() < 100
