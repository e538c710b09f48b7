"""CAT-Seg's views and label maps against what the authors' code computed, without any network."""

import numpy as np
import pytest

from edgeseg.errors import InputError
from edgeseg.pipelines.lmseg import LMSegPipeline
from edgeseg.placement import Placement
from edgeseg.schema import ImageTransform, Manifest, Source

CLIP = ImageTransform((122.7709383, 116.7460125, 104.09373615), (68.5005327, 66.6321579, 70.3231630))
RECIPE = {"window": 384, "stride": 256, "sides": {"image_clip": 384}, "classes_at_once": 256}
ONE, FIVE = (384, 384), (640, 640)


@pytest.fixture
def pipeline():
    source = Source("a.pth", "0" * 64)
    return LMSegPipeline(Manifest(1, "0", "lmseg", "catseg-b", source, RECIPE, {"image_clip": CLIP}, (ONE, FIVE)))


@pytest.mark.parametrize(("run", "canvas"), [("vitb_voc20_full", ONE), ("vitb_voc20_slide", FIVE)])
def test_views_are_the_authors(pipeline, shared, run, canvas):
    golden = np.load(shared / f"oracle/catseg/{run}.npz")
    image = np.ascontiguousarray(golden["image"].transpose(1, 2, 0))
    found = pipeline.image_feed(image, (375, 500), canvas)["image_clip"]
    assert found.shape == (1 if canvas == ONE else 5, 3, 384, 384)
    assert found.dtype == np.float32
    for view in golden["windows"]:
        if f"clip_input_w{view}_s8" in golden:
            assert np.abs(found[view, :, ::8, ::8] - golden[f"clip_input_w{view}_s8"]).max() <= 1e-5


@pytest.mark.parametrize("run", ["vitb_voc20_full", "vitb_c40_full_pool2"])
def test_a_label_map_of_the_authors_logits_is_theirs(pipeline, shared, run):
    golden = np.load(shared / f"oracle/catseg/{run}.npz")
    logits = golden["agg_logits"]
    picked = np.arange(logits.shape[1], dtype=np.int32)[None]
    place = Placement((375, 500), (375, 500), ONE, True, None)
    names = tuple(f"class {i}" for i in picked[0])
    evidence = pipeline.evidence({"logits": logits, "picked": picked}, names, place)
    assert (evidence.compose().labels == golden["labels"]).mean() > 0.9999
    scores = np.zeros((375, 500, len(names)), np.float32)
    for y, x, tile in evidence.scores():
        scores[y, x] = tile
    assert np.abs(scores[::16, ::16].transpose(2, 0, 1) - golden["scores_s16"]).max() <= 1e-5


def test_a_class_that_no_view_aggregated_has_no_score(pipeline):
    logits = np.random.default_rng(0).standard_normal((5, 2, 8, 8)).astype(np.float32)
    picked = np.array([[0, 3], [1, 3], [0, 3], [0, 1], [0, 3]], np.int32)
    place = Placement((50, 70), (50, 70), FIVE, True, None)
    evidence = pipeline.evidence({"logits": logits, "picked": picked}, ("a", "b", "c", "d"), place)
    found = evidence.compose()
    assert 2 not in found.labels
    assert found.areas.sum() == 50 * 70
    assert all((tile[..., 2] == 0).all() for _, _, tile in evidence.scores())


def test_a_top_k_bounds_the_classes_that_are_aggregated(pipeline):
    text, flags = np.zeros((300, 8), np.float32), np.zeros(300, np.float32)
    feeds = {k: pipeline.vocabulary_feed(text, flags, k) for k in (None, 32, 400)}
    assert {k: (len(feed["slots"]), float(feed["shared"][0])) for k, feed in feeds.items()} == {
        None: (256, 0.0),
        32: (32, 1.0),
        400: (256, 1.0),
    }
    with pytest.raises(InputError, match="at least 1"):
        pipeline.vocabulary_feed(text, flags, 0)
