"""Mask recall: what a labelled segment is, and when a mask finds it."""

import numpy as np
import pytest

from edgeseg.benches.accuracy.recall import THRESHOLDS, Recall, best_overlaps, components, parse_grids
from edgeseg.errors import InputError
from edgeseg.segments.runs import encode_all


def labels():
    """Two areas of class 0, one of them too small, one of class 1 around a corner, and pixels without a label."""
    made = np.full((30, 40), -1, np.int32)
    made[:10, :10] = 0
    made[20:29, 30:40] = 0  # 90 pixels
    made[10:20, 10:20] = 1
    made[20:25, 20:25] = 1  # touches the other by a corner
    return made


def test_segments_are_components_of_one_class_by_eight_neighbours():
    found = components(labels())
    assert np.unique(found).tolist() == [0, 1, 2]
    assert (found == 1).sum() == 100
    assert ((found == 2) == (labels() == 1)).all()
    assert np.unique(components(labels(), least=90)).tolist() == [0, 1, 2, 3]
    assert not components(np.full((5, 5), -1, np.int32)).any()


def test_a_mask_finds_a_segment_by_the_pixels_that_have_a_label():
    truth, counted = components(labels()), labels() >= 0
    masks = np.zeros((3, 30, 40), bool)
    masks[0, :10, :8] = True
    masks[0, :8, 20:] = True  # no label: as if it were not there
    masks[1, 10:20, 10:20] = True
    masks[2] = True
    overlaps = best_overlaps(encode_all(masks, (30, 40)), truth, counted)
    assert overlaps.tolist() == pytest.approx([0.8, 100 / 125])
    assert best_overlaps(encode_all(masks[2:], (30, 40)), truth, counted).tolist() == pytest.approx(
        [100 / 315, 125 / 315]
    )
    assert best_overlaps(encode_all([], (30, 40)), truth, counted).tolist() == [0, 0]


def test_recall_is_the_mean_over_ten_thresholds():
    assert THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
    found = Recall(8, 1, 4, 9, (4, 4, 2, 2, 2, 2, 2, 1, 1, 0), 1.0)
    assert found.average == 50
    assert found.at[0] == 100
    assert found.at[-1] == 0
    assert Recall(8, 1, 0, 9, (0,) * 10, 1.0).average is None


def test_grids_are_numbers():
    assert parse_grids("8,16, 8") == [8, 16]
    assert parse_grids(None) == []
    for text in ("8,", "0", "a", "-1"):
        with pytest.raises(InputError, match="write 8,16,32"):
            parse_grids(text)
