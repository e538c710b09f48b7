"""Automatic masks against segment-anything's own generator, on the same weights and photos."""

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benches.peers import mask_steps
from benches.peers.automatic import BUNDLE
from edgeseg.segments.automatic import AutomaticOptions, generate
from edgeseg.segments.runs import Runs, check, encode_all
from tests.edgeseg.segments.opened import runner
from tests.export.small_sam import authors
from tests.reference.golden_masks import PHOTOS, digest, golden
from tests.reference.sam_masks import generate as their_masks
from tests.reference.sam_masks import photo

pytestmark = [pytest.mark.torch, pytest.mark.onnx]

COUNT, IOU = 0.02, 0.98  # the issue's


def matched(ours: Runs, theirs: Runs) -> float:
    """Mean, over the authors' masks, of the best intersection over union with one of ours."""
    mine = np.stack([ours.mask(i) for i in range(len(ours))])
    areas, best = mine.sum(axis=(1, 2)), []
    for i in range(len(theirs)):
        other = theirs.mask(i)
        both = (mine & other).sum(axis=(1, 2))
        best.append((both / np.maximum(areas + other.sum() - both, 1)).max())
    return float(np.mean(best))


@pytest.fixture(scope="module")
def small(small_use):
    """A small SAM with stand-in weights: the bundle, opened, and the authors' model."""
    return runner(small_use, 1), authors()


@pytest.mark.parametrize("layers", [0, 1])
def test_masks_of_a_small_sam_are_the_authors(small, layers):
    from segment_anything import SamAutomaticMaskGenerator

    sam_runner, model = small
    rgb = np.ascontiguousarray(photo("china")[100:260, 200:440])
    # Stand-in weights estimate nothing, and their masks are grainy and everywhere.
    theirs_too = {"box_nms_thresh": 1.0, "crop_nms_thresh": 1.0, "crop_n_layers": layers}
    options = {"points_per_side": 4, "stability_score_thresh": 0.0, "pred_iou_thresh": 0.0, **theirs_too}
    theirs = SamAutomaticMaskGenerator(model, output_mode="binary_mask", **options).generate(rgb)
    none: dict[str, Any] = {"stability_threshold": 0.0, "pred_iou_threshold": 0.0}
    mine = AutomaticOptions(
        points_per_side=4, box_nms_threshold=1.0, crop_nms_threshold=1.0, crop_layers=layers, **none
    )
    ours = generate(sam_runner, rgb, mine)
    assert len(theirs) > 5
    assert len(ours) == len(theirs)
    for i, one in enumerate(theirs):
        mask = ours.runs.mask(i)
        either = (mask | one["segmentation"]).sum()
        assert (mask & one["segmentation"]).sum() >= 0.99 * either
        assert ours.iou[i] == pytest.approx(one["predicted_iou"], abs=1e-3)
        assert ours.stability[i] == pytest.approx(one["stability_score"], abs=1e-2)
        assert ours.points[i].tolist() == pytest.approx(one["point_coords"][0])


def test_no_mask_at_all_is_a_result(small):
    only_the_estimate = AutomaticOptions(points_per_side=2, pred_iou_threshold=1e9, stability_threshold=0.0)
    ours = generate(small[0], photo("china"), only_the_estimate)
    assert len(ours) == 0
    assert ours.size == (427, 640)


def test_small_regions_are_cleaned_and_every_point_is_counted(small):
    told = []
    options: dict[str, Any] = {"points_per_side": 3, "stability_threshold": 0.0, "pred_iou_threshold": 0.0}
    rgb = np.ascontiguousarray(photo("china")[:120, :160])
    plain = generate(small[0], rgb, AutomaticOptions(**options))
    clean = generate(
        small[0], rgb, AutomaticOptions(**options, min_region_area=200), lambda *counts: told.append(counts)
    )
    assert told[-1] == (9, 9)
    assert 0 < len(clean) <= len(plain)
    assert clean.runs.counts.size < plain.runs.counts.size


def test_steps_of_automatic_masks_are_told_apart(small_sam, tmp_path):
    (tmp_path / BUNDLE).symlink_to(small_sam.path)
    (tmp_path / "weights").touch()
    Image.fromarray(photo("china")[:120, :160]).save(tmp_path / "photo.png")
    words = [tmp_path, tmp_path / "weights", tmp_path / "photo.png", "--per-side", "3", "-o", tmp_path / "a.json"]
    assert mask_steps.main([str(word) for word in words]) == 0
    body = json.loads((tmp_path / "a.json").read_text())
    assert body["masks"] > 0
    assert [row["name"] for row in body["steps"]] == list(mask_steps.STEPS)
    assert all(len(row["seconds"]) == 2 and min(row["seconds"]) > 0 for row in body["steps"])
    assert sum(row["share_percent"] for row in body["steps"]) == pytest.approx(100)
    assert str(tmp_path) not in json.dumps(body)


@pytest.fixture(scope="module")
def mobile(mobile_bundle):
    return runner(mobile_bundle)


def close(ours, theirs):
    assert abs(len(ours) - len(theirs)) <= COUNT * len(theirs)
    assert matched(ours.runs, theirs) >= IOU
    assert matched(theirs, ours.runs) >= IOU


@pytest.mark.parametrize("name", PHOTOS)
def test_stored_masks_are_whole_and_of_the_photo_to_the_pixel(name):
    expected, pixels = golden(name)
    assert digest(photo(name)) == pixels
    assert expected.size == photo(name).shape[:2]
    assert len(check(expected, name)) > 10
    assert (expected.areas() > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", PHOTOS)
def test_masks_with_published_weights_are_the_authors(mobile, name):
    close(generate(mobile, photo(name), AutomaticOptions()), golden(name)[0])


@pytest.mark.slow
def test_on_another_photo_and_a_coarse_grid_too(mobile, shared):
    rgb = photo("astronaut")
    theirs = their_masks(shared / "data/mobile_sam.pt", rgb, points_per_side=8, points_per_batch=16)
    masks = [Runs(tuple(one["segmentation"]["size"]), *_counts(one)).mask(0) for one in theirs]
    close(generate(mobile, rgb, AutomaticOptions(points_per_side=8)), encode_all(masks, rgb.shape[:2]))


def _counts(one):
    counts = np.array(one["segmentation"]["counts"], np.uint32)
    return counts, np.array([0, len(counts)])
