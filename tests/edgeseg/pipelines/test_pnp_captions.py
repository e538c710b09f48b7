"""Class names in captions: which token belongs to which class, and with what weight."""

import numpy as np
import pytest

from edgeseg.errors import InputError
from edgeseg.pipelines.pnp_captions import Words, captions, filtered

PIECES = {"chair": (10,), "potted plant": (11, 12, 13, 14), "sheep": (15,), "tv monitor": (16, 17)}


def words(*names):
    ones = np.ones((len(names), 1), np.float32)
    pieces = {name: PIECES[name] for name in names}
    return Words(names, ones, ones[:, 0], pieces=pieces, frame=((99, 1, 2, 3), (98,)))


def test_one_caption_holds_the_classes_in_order():
    made = captions(words("chair", "potted plant", "sheep"), ["chair", "potted plant", "sheep"], 500)
    assert made.ids.tolist() == [[99, 1, 2, 3, 10, 11, 12, 13, 14, 15, 98]]
    assert made.mask.all()
    assert made.pieces[0, 0].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert made.pieces[0, 1].tolist() == [0, 0, 0, 0, 0, 0.25, 0.25, 0.25, 0.25, 0, 0]


@pytest.mark.parametrize(("last", "weight"), [("sum", 1.0), ("mean", 0.5)])
def test_last_class_of_the_caption_is_divided_or_not(last, weight):
    made = captions(words("chair", "tv monitor"), ["chair", "tv monitor"], 500, last)
    assert made.pieces[0, 1].tolist() == [0, 0, 0, 0, 0, weight, weight, 0]


def test_classes_that_do_not_fit_go_into_further_captions():
    names = ["chair", "potted plant", "sheep", "tv monitor"]
    made = captions(words(*names), names, 10)
    assert made.ids.tolist() == [
        [99, 1, 2, 3, 10, 11, 12, 13, 14, 98],
        [99, 1, 2, 3, 15, 16, 17, 98, 0, 0],
    ]
    assert made.mask.sum(1).tolist() == [10, 8]
    assert np.flatnonzero(made.pieces[1].any(1)).tolist() == [2, 3]
    assert made.pieces[1, 3].tolist() == [0, 0, 0, 0, 0, 0.5, 0.5, 0, 0, 0]  # always the mean where there are several


def test_name_that_fits_no_caption_is_refused():
    with pytest.raises(InputError, match="potted plant"):
        captions(words("chair", "potted plant"), ["chair", "potted plant"], 8)


@pytest.mark.parametrize(("least", "kept"), [(0.5, [0, 2]), (0.2, [0, 2, 3]), (0.95, [0])])
def test_filter_keeps_what_matches_and_the_best_in_any_case(least, kept):
    chance = {10: 0.9, 11: 0.1, 15: 0.6, 16: 0.3}
    seen = []

    def probability(made):
        assert made.mask.sum(1).tolist() == [6 + (first == 11) * 3 + (first == 16) for first in made.ids[:, 4]]
        seen.append(len(made.ids))
        return np.array([chance[int(first)] for first in made.ids[:, 4]], np.float32)

    assert filtered(words(*PIECES), probability, 500, least, batch=3) == kept
    assert seen == [3, 1]
