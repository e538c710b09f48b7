"""What happens to masks between the decoder and the result, each held to the tool that the authors use for it."""

import numpy as np
import pytest

from edgeseg.errors import InputError
from edgeseg.placement import Placement, place
from edgeseg.segments.aggregate import ClassedSegments, covers
from edgeseg.segments.automatic import AutomaticOptions, crop_boxes
from edgeseg.segments.nms import suppress
from edgeseg.segments.pooling import AreaPooling, fixed_weights
from edgeseg.segments.prompts import box_prompts, fixed_prompts, grid, on_canvas, point_prompts
from edgeseg.segments.regions import regions, without_small
from edgeseg.segments.runs import encode_all
from edgeseg.segments.scaling import MaskScaler

RECIPE = {"resize": {"mode": "long-side", "long": 256}, "divisor": 256}


def placement(height, width):
    return place((height, width), [(256, 256)], RECIPE)


def random(seed=0):
    return np.random.Generator(np.random.PCG64(seed))


def blobs(count, side, seed=0):
    """Smooth logits (count, side, side), some of them small islands."""
    coarse = random(seed).normal(-1, 3, (count, 8, 8))
    return np.kron(coarse, np.ones((side // 8, side // 8))).astype(np.float32)


@pytest.mark.torch
@pytest.mark.parametrize("size", [(97, 200), (200, 97), (300, 300), (61, 40)])
def test_a_window_is_the_authors_mask_where_it_can_be_positive(size):
    import torch
    from torch.nn.functional import interpolate

    where = placement(*size)
    for logits in blobs(6, 64):
        canvas = interpolate(torch.from_numpy(logits)[None, None], (256, 256), mode="bilinear")
        valid = canvas[..., : where.valid[0], : where.valid[1]]
        expected = interpolate(valid, size, mode="bilinear")[0, 0].numpy()
        scaler = MaskScaler(where, 64)
        window = scaler.window(scaler.part(logits, -1.0))
        found = np.full(size, -2.0, np.float32)
        height, width = window.values.shape
        part = found[window.top : window.top + height, window.left : window.left + width] = window.values
        np.testing.assert_allclose(
            part, expected[window.top : window.top + height, window.left : window.left + width], atol=1e-4
        )
        assert ((found > -1 + 1e-4) <= (expected > -1)).all()
        assert ((expected > -1 + 1e-4) <= (found > -1)).all()


def test_a_mask_without_a_positive_cell_has_a_window_of_one_pixel():
    scaler = MaskScaler(placement(50, 70), 64)
    window = scaler.window(scaler.part(np.full((64, 64), -9.0, np.float32), -1.0))
    assert window.values.shape == (1, 1)
    assert window.values[0, 0] < -8


@pytest.mark.torch
@pytest.mark.parametrize("seed", range(4))
def test_suppression_is_torchvisions(seed):
    import torch
    from torchvision.ops import nms

    corners = random(seed).integers(0, 40, (200, 2, 2))
    boxes = np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1).astype(np.float32)
    scores = random(seed + 9).integers(0, 50, 200).astype(np.float32)  # many ties
    expected = nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.3).numpy()
    assert suppress(boxes, scores, 0.3).tolist() == expected.tolist()


def test_no_box_and_one_box_can_be_suppressed():
    assert suppress(np.zeros((0, 4)), np.zeros(0), 0.5).tolist() == []
    assert suppress(np.zeros((1, 4)), np.zeros(1), 0.5).tolist() == [0]


@pytest.mark.parametrize("seed", range(6))
def test_regions_are_scikit_images(seed):
    from skimage.measure import label

    mask = random(seed).random((23, 31)) < (0.1, 0.3, 0.45, 0.6, 0.0, 1.0)[seed]
    numbers, sizes = regions(mask)
    expected = label(mask, connectivity=2)
    assert len(sizes) == expected.max()
    assert sorted(sizes) == sorted(np.bincount(expected.ravel())[1:])
    pairs = set(zip(numbers.ravel().tolist(), expected.ravel().tolist(), strict=True))
    assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs})


def test_small_holes_are_filled_and_small_islands_dropped():
    mask = np.zeros((12, 12), bool)
    mask[1:8, 1:8] = True
    mask[3, 3] = mask[5:7, 4:7] = False  # holes of 1 and 6 pixels
    mask[10, 10] = True
    better = without_small(mask, 4)
    assert better[3, 3]
    assert not better[5, 5]
    assert not better[10, 10]
    assert without_small(better, 4) is better


def test_the_largest_island_stays_if_all_are_small():
    mask = np.zeros((20, 20), bool)
    mask[0, :3] = mask[10, 10] = True
    assert without_small(mask, 100).sum() == 3


@pytest.mark.torch
@pytest.mark.parametrize("layers", [0, 1, 2])
def test_crops_are_the_authors(layers):
    from segment_anything.utils.amg import generate_crop_boxes

    boxes, numbers = generate_crop_boxes((301, 453), layers, 512 / 1500)
    assert crop_boxes((301, 453), layers, 512 / 1500) == [
        (tuple(box), number) for box, number in zip(boxes, numbers, strict=True)
    ]


@pytest.mark.torch
def test_points_are_the_authors():
    from segment_anything.utils.amg import build_point_grid
    from segment_anything.utils.transforms import ResizeLongestSide

    np.testing.assert_array_equal(grid(7), build_point_grid(7))
    points = grid(5) * (453, 301)
    expected = ResizeLongestSide(256).apply_coords(points, (301, 453))
    np.testing.assert_allclose(on_canvas(points, placement(301, 453)), expected, rtol=1e-6)


def test_prompts_are_padded_to_the_decoders_number_of_points():
    points, labels = point_prompts(np.ones((2, 2), np.float32), 3)
    assert points.shape == (2, 3, 2)
    assert labels.tolist() == [[1, -1, -1]] * 2
    corners, labels = box_prompts(np.array([[1, 2, 3, 4]]), placement(256, 256), 2)
    assert corners.tolist() == [[[1, 2], [3, 4]]]
    assert labels.tolist() == [[2, 3]]
    assert fixed_prompts(5, 2, (64, 32))["points"][:, 0].max() <= 64


@pytest.mark.parametrize("box", [[3, 2, 3, 4], [5, 0, 1, 4], [300, 0, 310, 9], [-9, -9, -1, -1], [0, 0, np.nan, 4]])
def test_boxes_without_a_pixel_of_the_photo_are_refused(box):
    with pytest.raises(InputError, match="holds no pixel of a photo of 256 x 128"):
        box_prompts(np.array([box]), placement(128, 256), 2)


@pytest.mark.parametrize(
    "change", [{"points_per_side": 0}, {"crop_layers": 9}, {"crop_overlap_ratio": 1.0}, {"min_region_area": -1}]
)
def test_options_out_of_range_are_refused(change):
    with pytest.raises(InputError):
        AutomaticOptions(**change)
    with pytest.raises(InputError, match="there is none"):
        AutomaticOptions.of({}, {"points": 3})


def test_weights_are_shares_of_area():
    mask = np.zeros((1, 128, 256), bool)
    mask[0, :24, :16] = True  # patches of 16 pixels: one whole, one half
    pooling = AreaPooling(Placement((128, 256), (128, 256), (256, 256), True, None), 256)
    weights = pooling.weights(encode_all(mask, (128, 256))).reshape(16, 16)
    assert weights[0, 0] == pytest.approx(2 / 3)
    assert weights[1, 0] == pytest.approx(1 / 3)
    assert weights.sum() == pytest.approx(1)
    whole = pooling.whole().reshape(16, 16)
    assert whole[:8].sum() == pytest.approx(1)
    assert whole[8:].sum() == 0  # padding


def test_weights_of_a_resized_photo_keep_their_area():
    runs = encode_all(random().random((3, 61, 40)) < 0.4, (61, 40))
    weights = AreaPooling(placement(61, 40), 64).weights(runs)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)


def test_an_empty_mask_has_no_weight():
    empty = encode_all(np.zeros((1, 61, 40), bool), (61, 40))
    assert not AreaPooling(placement(61, 40), 64).weights(empty).any()


def test_fixed_segments_cover_every_patch_once():
    weights = fixed_weights(16, 784)
    assert ((weights > 0).sum(axis=0) == 1).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)


def classed(runs, probabilities, whole):
    place = Placement(runs.size, runs.size, runs.size, True, None)
    names = tuple(map(str, range(probabilities.shape[1])))
    return ClassedSegments(runs, probabilities, None if whole is None else np.array(whole, np.float32), names, place)


def overlapping():
    masks = np.zeros((4, 4, 6), bool)
    masks[0, :, :4] = masks[1, :, 2:5] = True
    masks[2, 0, 0] = True  # masks[3] is empty
    probabilities = np.array([[0.6, 0.4, 0], [0.1, 0.9, 0], [0, 0.45, 0.55], [0, 0, 1]], np.float32)
    return encode_all(masks, (4, 6)), probabilities


def test_a_pixel_has_the_mean_of_the_segments_that_cover_it():
    runs, probabilities = overlapping()
    found = classed(runs, probabilities, [0, 0, 1]).compose()
    assert found.labels[1].tolist() == [0, 0, 1, 1, 1, 2]
    assert found.labels[0, 0] == 1  # (0.3, 0.425, 0.275)
    assert found.areas.tolist() == [7, 13, 4]
    assert found.best is None
    numbers, members = covers(runs)
    assert numbers.shape == (4, 6)
    assert sorted(members) == [[], [0], [0, 1], [0, 2], [1]]


def test_a_pixel_below_the_threshold_or_without_a_segment_has_no_class():
    runs, probabilities = overlapping()
    without = classed(runs, probabilities, None)
    assert without.compose().labels[1].tolist() == [0, 0, 1, 1, 1, 65535]
    found = without.compose(0.61)
    assert found.labels[1].tolist() == [65535, 65535, 1, 1, 1, 65535]
    assert found.best[1].tolist() == pytest.approx([0.6, 0.6, 0.65, 0.65, 0.9, 0])
    assert found.areas.tolist() == [0, 12, 0]
    assert classed(runs, probabilities, [0.7, 0.3, 0]).compose(0.61).labels[1, 5] == 0


def test_scores_are_those_of_the_labels():
    runs, probabilities = overlapping()
    one = classed(runs, probabilities, [0, 0, 1])
    scores = np.concatenate([rows for _, _, rows in one.scores()])
    assert scores.shape == (4, 6, 3)
    np.testing.assert_allclose(scores[0, 0], (0.3, 0.425, 0.275), rtol=1e-6)
    assert (scores.argmax(axis=2) == one.compose().labels).all()
    assert set(one.arrays()) == {"counts", "starts", "class_probs", "whole_probs"}
    tall = classed(encode_all(np.eye(70, 3, dtype=bool)[None], (70, 3)), np.ones((1, 1), np.float32), [0])
    tiles = {y.start: rows[..., 0].any() for y, _, rows in tall.scores()}
    assert tiles == {0: True, 32: False, 64: False}


def test_no_segment_leaves_the_photo_as_one():
    runs = encode_all(np.zeros((0, 3, 3), bool), (3, 3))
    none = np.zeros((0, 2), np.float32)
    assert (classed(runs, none, [0.2, 0.8]).compose().labels == 1).all()
    assert (classed(runs, none, None).compose().labels == 65535).all()
