import numpy as np
import pytest

from edgeseg.errors import BackendError, BundleError
from edgeseg.pipelines import get_pipeline
from edgeseg.schema import GraphSpec, ImageTransform, TensorSpec
from tests.edgeseg.small_bundle import manifest

IMAGES = {"image_sam": ImageTransform((1, 1, 1), (2, 2, 2)), "image_clip": ImageTransform((0, 0, 0), (1, 1, 1), 0.5)}
DECODER = GraphSpec("sam_decoder", "fp32", (64, 64), "a", (), (TensorSpec("points", "float32", (4, 2, 2)),), ())
HEAD = GraphSpec("use_head", "fp32", (64, 64), "b", (), (TensorSpec("segment_weights", "float32", ("S", 16)),), ())
RGB = np.zeros((48, 64, 3), np.uint8)


def test_sam_is_fed_the_image_and_fixed_prompts_on_its_valid_part():
    pipeline = get_pipeline(manifest(family="sam", images=IMAGES, graphs=(DECODER,)))
    feed = pipeline.image_feed(RGB, (48, 64), (64, 64))
    assert feed["image_sam"].shape == (1, 3, 64, 64)
    assert feed["points"][:, 0].tolist() == [[16, 12], [48, 12], [16, 36], [48, 36]]
    assert feed["point_labels"].tolist() == [[1, -1]] * 4
    assert feed["valid"].tolist() == [48, 64]
    assert pipeline.vocabulary_feed(np.ones((2, 3)), np.ones(2)) == {}


def test_use_is_fed_fixed_segments_too():
    pipeline = get_pipeline(manifest(family="use", images=IMAGES, graphs=(DECODER, HEAD)))
    feed = pipeline.image_feed(RGB, (48, 64), (64, 64))
    assert feed["segment_weights"].shape == (4, 16)
    assert feed["image_clip"].shape == (1, 3, 32, 32)
    assert set(pipeline.vocabulary_feed(np.ones((2, 3)), np.ones(2))) == {"text"}


def test_each_prompt_is_a_class_of_sams_gate():
    pipeline = get_pipeline(manifest(family="sam", images=IMAGES, graphs=(DECODER,)))
    masks = np.arange(4 * 4 * 2 * 2, dtype=np.float32).reshape(4, 4, 2, 2)
    logits, classes = pipeline.masks({"prompt_masks": masks})
    assert np.array_equal(logits, masks[:, 0])
    assert np.array_equal(classes, np.eye(4))
    masks[0, 0, 0, 0] = np.nan
    with pytest.raises(BackendError, match="not finite"):
        pipeline.masks({"prompt_masks": masks})


def test_a_bundle_whose_graphs_take_no_points_is_refused():
    with pytest.raises(BundleError, match="takes a fixed number of points"):
        get_pipeline(manifest(family="sam", images=IMAGES))
