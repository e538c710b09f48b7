import numpy as np
import pytest

from edgeseg.errors import InputError
from edgeseg.pipelines import PIPELINES, get_pipeline
from edgeseg.placement import Placement
from edgeseg.preprocess import preprocess
from tests.edgeseg.tiny_bundle import manifest

RGB = np.random.default_rng(0).integers(0, 256, (64, 90, 3)).astype(np.uint8)


def test_every_image_of_the_manifest_is_fed():
    made = manifest()
    feed = get_pipeline(made).image_feed(RGB, (64, 90), (64, 96))
    assert {name: array.shape for name, array in feed.items()} == {
        "image_sam": (1, 3, 64, 96),
        "image_clip": (1, 3, 32, 48),
    }
    assert np.array_equal(feed["image_clip"], preprocess(RGB, (64, 90), made.images["image_clip"], (64, 96)))


def test_masks_lose_their_batch_axis():
    logits, probs = np.zeros((1, 5, 16, 24), np.float32), np.zeros((1, 5, 3), np.float32)
    place = Placement((64, 96), (64, 96), (64, 96), True, None)
    found = get_pipeline(manifest()).evidence({"mask_logits": logits, "class_probs": probs}, ("a", "b", "c"), place)
    assert {name: array.shape for name, array in found.arrays().items()} == {
        "logits": (5, 16, 24),
        "class_probs": (5, 3),
    }


def test_early_rejection_is_refused_where_there_is_none():
    with pytest.raises(InputError, match="leave --top-k out"):
        get_pipeline(manifest()).vocabulary_feed(np.zeros((3, 4)), np.zeros(3), 2)


@pytest.mark.parametrize("family", PIPELINES)
def test_a_pipeline_says_what_it_wants(family):
    pipeline = get_pipeline(manifest())
    assert pipeline.graphs
    assert pipeline.wanted
