import json
import runpy
from types import SimpleNamespace

import numpy as np
import pytest

from tests.reference.weights import draw, ebseg_shapes, ebseg_weights, is_weight

KEYS = [
    "clip_visual_extractor.class_embedding",
    "clip_visual_extractor.ln_pre.weight",
    "clip_visual_extractor.proj",
    "backbone.pos_embed",
    "backbone.blocks.2.attn.rel_pos_h",
    "backbone.blocks.0.attn.qkv.bias",
    "ov_classifier.logit_scale",
    "ov_classifier.bg_embed",
    "ov_classifier.text_projection",
    "sem_seg_head.predictor.logit_scale",
    "sem_seg_head.predictor.query_feat.weight",
    "sem_seg_head.predictor.query_embed.weight",
    "sem_seg_head.predictor.mask_embed.layers.0.weight",
    "sem_seg_head.predictor.mask_embed1.layers.2.weight",
    "sem_seg_head.predictor.mask_embed.layers.0.bias",
    "sem_seg_head.predictor.transformer_self_attention_layers.0.self_attn.in_proj_weight",
    "sem_seg_head.pixel_decoder.transformer.level_embed",
    "sem_seg_head.pixel_decoder.layer_1.weight",
]


@pytest.fixture(scope="module")
def oracle(shared):
    """The oracle's own generator of weights."""
    return SimpleNamespace(**runpy.run_path(str(shared / "oracle/ebseg/ebseg_weights.py")))


@pytest.mark.parametrize("variant", ["b", "l"])
def test_names_and_shapes_are_the_released_ones(shared, variant):
    listed = json.loads((shared / f"oracle/ebseg/ebseg_{variant}.keys.json").read_text())
    assert ebseg_shapes(variant) == {key: tuple(shape) for key, (shape, _) in listed.items()}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("seed", [0, 7])
def test_numbers_are_the_oracles(oracle, key, seed):
    shape = ebseg_shapes("b")[key]
    assert np.array_equal(draw(key, shape, seed), oracle.synth(key, shape, seed).reshape(shape))  # it makes () a (1,)


def test_words_are_the_oracles(oracle):
    key, shape = "ov_classifier.token_embedding.weight", (40, 512)
    assert np.array_equal(draw(key, shape), oracle.synth(key, shape, 0))


def test_the_same_entries_are_left_out(oracle):
    keys = ebseg_shapes("l")
    assert [is_weight(key) for key in keys] == [oracle.is_weight(key) for key in keys]


@pytest.mark.parametrize("variant", ["b", "l"])
def test_a_variant_has_the_published_number_of_weights(variant):
    twice = ("clip_rec_head.proj", "clip_rec_head.ln_post")  # the trunk holds them, too
    shapes = {
        key: shape for key, shape in ebseg_shapes(variant).items() if is_weight(key) and not key.startswith(twice)
    }

    count = sum(int(np.prod(shape)) for shape in shapes.values())
    assert round(count / 1e6, 1) == {"b": 261.8, "l": 541.1}[variant]


@pytest.mark.parametrize(
    ("key", "first"),
    [
        ("backbone.pos_embed", -0.013878866),
        ("sem_seg_head.predictor.query_feat.weight", 0.7928074),
        ("clip_rec_head.proj", 0.1250359),
        ("backbone.blocks.0.norm1.weight", 0.89922744),
    ],
)
def test_numbers_do_not_change(key, first):
    assert draw(key, ebseg_shapes("tiny")[key]).ravel()[0] == pytest.approx(first, rel=1e-6)


def test_all_weights_of_the_tiny_variant_are_made():
    weights, shapes = ebseg_weights("tiny"), ebseg_shapes("tiny")
    assert set(shapes) - set(weights) == {"criterion.empty_weight", "ov_classifier.attn_mask"}
    assert all(value.shape == shapes[key] and value.dtype == np.float32 for key, value in weights.items())


def test_only_wanted_weights_are_made():
    assert list(ebseg_weights("b", wanted=lambda key: key.endswith("logit_scale"))) == [
        "ov_classifier.logit_scale",
        "sem_seg_head.predictor.logit_scale",
    ]
