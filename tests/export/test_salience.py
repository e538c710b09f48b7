"""One round of salience dropout: which patches go, and what a class's map is made of."""

import numpy as np
import pytest
import torch

from edgeseg.export.nets.salience import Salience

pytestmark = pytest.mark.torch


def step(cam, pieces, keep=None, weight=1.0, patches=2.0, so_far=0.0):
    """One round over (B, T, 6) maps of 2x3 patches."""
    cam, pieces = torch.tensor(cam, dtype=torch.float32), torch.tensor(pieces, dtype=torch.float32)
    kept = torch.ones(1, 1, 2, 3) if keep is None else torch.tensor(keep, dtype=torch.float32).reshape(1, 1, 2, 3)
    before = torch.full((pieces.shape[1], 6), so_far)
    left, maps = Salience()(cam, pieces, kept, torch.tensor([weight]), torch.tensor([patches]), before)
    return left.flatten().int().tolist(), maps.numpy()


CAM = [[[9, 9, 9, 9, 9, 9], [0, 1, 2, 0, 0, 0], [0, 0, 1, 0, 0, 4]]]  # the first token belongs to no class
PIECES = [[[0, 1, 0], [0, 0, 1]]]


def test_most_salient_patches_are_left_out_and_tokens_of_no_class_do_not_count():
    assert step(CAM, PIECES)[0] == [1, 1, 0, 1, 1, 0]


def test_patch_that_is_out_stays_out_and_adds_nothing():
    left, maps = step(CAM, PIECES, keep=[1, 1, 1, 1, 1, 0], patches=1.0)
    assert left == [1, 1, 0, 1, 1, 0]
    np.testing.assert_array_equal(maps[1], [0, 0, 1, 0, 0, 0])


def test_maps_add_up_by_weight():
    _, maps = step(CAM, PIECES, weight=2.0, so_far=1.0)
    np.testing.assert_array_equal(maps, [[1, 3, 5, 1, 1, 1], [1, 1, 3, 1, 1, 9]])


def test_patches_without_salience_stay():
    assert step(CAM, PIECES, patches=6.0)[0] == [1, 0, 0, 1, 1, 0]


def test_of_equals_the_later_one_goes():
    assert step([[[5, 1, 5, 0, 0, 5]]], [[[1]]], patches=2.0)[0] == [1, 1, 0, 1, 1, 0]


def test_captions_share_their_image():
    cam, pieces = (
        [CAM[0][1:], [[0, 0, 0, 7, 0, 0], [1, 0, 0, 0, 0, 0]]],
        [[[1, 0], [0, 1], [0, 0]], [[0, 0], [0, 0], [0.5, 0.5]]],
    )
    left, maps = step(cam, pieces, patches=1.0)
    assert left == [1, 1, 1, 0, 1, 1]
    np.testing.assert_array_equal(maps, [[0, 1, 2, 0, 0, 0], [0, 0, 1, 0, 0, 4], [0.5, 0, 0, 3.5, 0, 0]])
