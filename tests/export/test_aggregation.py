"""The rewrites in CAT-Seg's aggregation against the plain formulation, in float64."""

import pytest
import torch
from torch.nn import functional as F

from edgeseg.export.nets.aggregation import Aggregation, AggregationConfig, ClassLayer, DecoderStage
from edgeseg.export.nets.swin import SwinConfig, SwinPair, shift_mask
from tests.export.small import fill
from tests.reference.catseg_plain import aggregate, class_layer, decoder_stage, swin_pair

pytestmark = pytest.mark.torch

SWIN = SwinConfig(width=32, guidance=16, hidden=48, grid=4, window=2, heads=2)
CONFIG = AggregationConfig(
    embedding=24,
    swin=SWIN,
    class_hidden=40,
    text_guidance=20,
    early=12,
    late=10,
    decoder=(32, 16),
    decoder_guidance=(8, 8),
)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def filled(module):
    """Stand-in weights; the mask of the shifted windows stays."""
    masks = {name: value.clone() for name, value in module.state_dict().items() if name.endswith("attn_mask")}
    made = fill(module)
    made.load_state_dict(made.state_dict() | masks)
    return made


def test_windows_by_gathers_are_windows_by_rolls():
    pair = filled(SwinPair(SWIN))
    x, appearance = random(3, 16, 32), random(1, 16, 16, seed=1)
    assert torch.allclose(pair(x, pair.guide(appearance)), swin_pair(SWIN, pair, x, appearance), rtol=0, atol=1e-9)


def test_the_mask_forbids_what_only_the_roll_brought_together():
    """On a 4x4 grid, 2x2 windows shifted by one: the last window holds the four corners, which see only themselves."""
    mask = shift_mask(4, 2, 1)
    assert torch.equal(mask[0], torch.zeros(4, 4))
    assert torch.equal(mask[3], -100 * (1 - torch.eye(4)))


@pytest.mark.parametrize("pooling", [1, 2])
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("count", [1, 7, 256])
def test_pads_as_one_product_are_pads_in_the_class_axis(pooling, parts, count):
    config = AggregationConfig(**{**vars(CONFIG), "pooling": pooling})
    layer = filled(ClassLayer(config))
    x, named = random(count, 16, 32), random(count, 20, seed=1)
    wanted = class_layer(config, layer, x, named)
    assert torch.allclose(layer(x, named, parts), wanted, rtol=0, atol=1e-9)


def test_the_decoders_guidance_is_as_good_as_concatenated():
    stage = filled(DecoderStage(32, 16, 8))
    x, guidance = random(3, 32, 4, 4), random(1, 8, 8, 8, seed=1)
    assert torch.allclose(stage(x, stage.guide(guidance)), decoder_stage(stage, x, guidance), rtol=0, atol=1e-9)


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("count", [1, 3, 10])
def test_shares_change_nothing(parts, count):
    net = filled(Aggregation(CONFIG))
    inputs = random(2, 16, 24), random(2, 12, 8, 8, seed=1), random(2, 10, 16, 16, seed=2)
    text = F.normalize(random(2, count, 1, 24, seed=3), dim=-1)
    wanted = net(*inputs, text)
    net.parts = parts
    assert wanted.shape == (2, count, 16, 16)
    assert torch.allclose(net(*inputs, text), wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("count", [1, 5])
def test_the_whole_is_the_plain_formulation(count):
    net = filled(Aggregation(CONFIG))
    inputs = random(1, 16, 24), random(1, 12, 8, 8, seed=1), random(1, 10, 16, 16, seed=2)
    text = F.normalize(random(count, 24, seed=3), dim=-1)
    assert torch.allclose(net(*inputs, text[None, :, None])[0], aggregate(net, *inputs, text), rtol=0, atol=1e-9)
