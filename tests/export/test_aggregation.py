"""The rewrites in CAT-Seg's aggregation against the plain formulation, in float64."""

import pytest
import torch
from torch.nn import functional as F

from edgeseg.export.nets.aggregation import Aggregation, AggregationConfig, ClassLayer, DecoderStage
from edgeseg.export.nets.swin import SwinConfig, SwinPair, shift_mask
from tests.export.small import fill

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


def plain_swin_block(block, x, guidance, shift):
    """Roll, cut windows, attend to [x, guidance], put back, roll back."""
    n, side, w = len(x), SWIN.grid, SWIN.window
    y = torch.cat((block.norm1(x), guidance.expand(n, -1, -1)), dim=-1).reshape(n, side, side, -1)
    y = y.roll((-shift, -shift), dims=(1, 2)).reshape(n, side // w, w, side // w, w, -1)
    y = y.permute(0, 1, 3, 2, 4, 5).reshape(n, -1, w * w, y.shape[-1])
    heads = [
        part.reshape(*part.shape[:3], SWIN.heads, -1).transpose(2, 3)
        for part in (block.attn.q(y), block.attn.k(y), block.attn.v(y[..., : SWIN.width]))
    ]
    scores = heads[0] * heads[0].shape[-1] ** -0.5 @ heads[1].transpose(-2, -1)
    if shift:
        scores = scores + shift_mask(side, w, shift)[None, :, None]
    out = block.attn.proj((scores.softmax(-1) @ heads[2]).transpose(2, 3).flatten(3))
    out = out.reshape(n, side // w, side // w, w, w, -1).permute(0, 1, 3, 2, 4, 5).reshape(n, side, side, -1)
    x = x + out.roll((shift, shift), dims=(1, 2)).reshape(n, side * side, -1)
    return x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))


def test_windows_by_gathers_are_windows_by_rolls():
    pair = filled(SwinPair(SWIN))
    x, appearance = random(3, 16, 32), random(1, 16, 16, seed=1)
    guidance = pair.guidance_norm(appearance)
    wanted = plain_swin_block(pair.block_1, x, guidance, 0)
    wanted = plain_swin_block(pair.block_2, wanted, guidance, 1)
    assert torch.allclose(pair(x, pair.guide(appearance)), wanted, rtol=0, atol=1e-9)


def test_the_mask_forbids_what_only_the_roll_brought_together():
    """On a 4x4 grid, 2x2 windows shifted by one: the last window holds the four corners, which see only themselves."""
    mask = shift_mask(4, 2, 1)
    assert torch.equal(mask[0], torch.zeros(4, 4))
    assert torch.equal(mask[3], -100 * (1 - torch.eye(4)))


def plain_class_layer(layer, x, named, pooling):
    """Pool, append pads to 256 classes, attend over the classes, drop the pads, resize back."""
    size, count = (SWIN.grid, SWIN.grid), len(x)
    y = F.avg_pool2d(x.transpose(1, 2).reshape(count, -1, *size), pooling)
    y = y.flatten(2).permute(2, 0, 1)  # positions, classes, channels
    y = torch.cat((y, layer.padding_tokens.expand(len(y), 256 - count, -1)), dim=1)
    guidance = torch.cat((named[None], layer.padding_guidance.expand(1, 256 - count, -1)), dim=1)
    normed = layer.norm1(y)
    both = torch.cat((normed, guidance.expand(len(y), -1, -1)), dim=-1)
    q, k, v = (
        part.reshape(*part.shape[:2], SWIN.heads, -1)
        for part in (layer.attention.q(both), layer.attention.k(both), layer.attention.v(normed))
    )
    q, k = F.elu(q) + 1, F.elu(k) + 1
    weights = torch.einsum("nlhd,nshd->nhls", q, k)
    weights = weights / (weights.sum(-1, keepdim=True) + 1e-6)
    y = y + torch.einsum("nhls,nshd->nlhd", weights, v).flatten(2)
    y = y + layer.MLP(layer.norm2(y))
    y = y[:, :count].permute(1, 2, 0).reshape(count, -1, size[0] // pooling, size[1] // pooling)
    return x + F.interpolate(y, size=size, mode="bilinear", align_corners=True).flatten(2).transpose(1, 2)


@pytest.mark.parametrize("pooling", [1, 2])
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("count", [1, 7, 256])
def test_pads_as_one_product_are_pads_in_the_class_axis(pooling, parts, count):
    layer = filled(ClassLayer(AggregationConfig(**{**vars(CONFIG), "pooling": pooling})))
    x, named = random(count, 16, 32), random(count, 20, seed=1)
    wanted = plain_class_layer(layer, x, named, pooling)
    assert torch.allclose(layer(x, named, parts), wanted, rtol=0, atol=1e-9)


def test_the_decoders_guidance_is_as_good_as_concatenated():
    stage = filled(DecoderStage(32, 16, 8))
    x, guidance = random(3, 32, 4, 4), random(1, 8, 8, 8, seed=1)
    wanted = stage.conv.double_conv(torch.cat((stage.up(x), guidance.expand(3, -1, -1, -1)), dim=1))
    assert torch.allclose(stage(x, stage.guide(guidance)), wanted, rtol=0, atol=1e-9)


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
