import numpy as np
import pytest

from edgeseg.errors import BackendError, BundleError, InputError
from edgeseg.pipelines import get_pipeline
from edgeseg.placement import Placement
from edgeseg.schema import ImageTransform
from tests.edgeseg.small_bundle import manifest

IMAGES = {"image_sam": ImageTransform((1, 1, 1), (2, 2, 2)), "image_clip": ImageTransform((0, 0, 0), (1, 1, 1), 0.5)}
SAM = {"prompting": {"batch": 4, "points": 2}}
RGB = np.zeros((48, 64, 3), np.uint8)


def test_sam_is_fed_the_image_and_fixed_prompts_on_its_valid_part():
    pipeline = get_pipeline(manifest(family="sam", images=IMAGES, recipe=SAM))
    feed = pipeline.image_feed(RGB, (48, 64), (64, 64))
    assert feed["image_sam"].shape == (1, 3, 64, 64)
    assert feed["points"][:, 0].tolist() == [[16, 12], [48, 12], [16, 36], [48, 36]]
    assert feed["point_labels"].tolist() == [[1, -1]] * 4
    assert feed["valid"].tolist() == [48, 64]
    assert pipeline.vocabulary_feed(np.ones((2, 3)), np.ones(2)) == {}


def test_use_is_fed_fixed_segments_too():
    pipeline = get_pipeline(manifest(family="use", images=IMAGES, recipe={**SAM, "patches": 16}))
    feed = pipeline.image_feed(RGB, (48, 64), (64, 64))
    assert feed["segment_weights"].shape == (4, 16)
    assert feed["image_clip"].shape == (1, 3, 32, 32)
    assert set(pipeline.vocabulary_feed(np.ones((2, 3)), np.ones(2))) == {"text"}


def test_each_prompt_is_a_class_of_sams_gate():
    pipeline = get_pipeline(manifest(family="sam", images=IMAGES, recipe=SAM))
    masks = np.arange(4 * 4 * 2 * 2, dtype=np.float32).reshape(4, 4, 2, 2)
    place = Placement((64, 64), (64, 64), (64, 64), True, None)
    found = pipeline.evidence({"prompt_masks": masks}, (), place)
    assert np.array_equal(found.arrays()["logits"], masks[:, 0])
    assert np.array_equal(found.arrays()["class_probs"], np.eye(4))
    masks[0, 0, 0, 0] = np.nan
    with pytest.raises(BackendError, match="not finite"):
        pipeline.evidence({"prompt_masks": masks}, (), place)


@pytest.mark.parametrize("prompts", [None, {"batch": 4}, {"batch": 0, "points": 2}, {"batch": True, "points": 2}])
def test_a_recipe_without_counts_of_prompts_is_refused(prompts):
    with pytest.raises(BundleError, match="no whole number of"):
        get_pipeline(manifest(family="sam", images=IMAGES, recipe={"prompting": prompts}))


@pytest.mark.parametrize(("family", "recipe"), [("sam", SAM), ("use", {**SAM, "patches": 16})])
def test_early_rejection_is_refused_where_there_is_none(family, recipe):
    with pytest.raises(InputError, match="leave --top-k out"):
        get_pipeline(manifest(family=family, images=IMAGES, recipe=recipe)).vocabulary_feed(
            np.ones((2, 3)), np.ones(2), 1
        )
