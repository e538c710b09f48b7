"""BLIP's networks and the closed-form gradient against autograd, in float64, where only rounding is left."""

from dataclasses import replace

import pytest
import torch

from edgeseg.export.nets.blip_itm import BlipItm
from edgeseg.export.nets.fixed import fixing
from tests.export import small_blip
from tests.reference import blip_original as original

pytestmark = pytest.mark.torch

SIZES = original.Sizes(vit_heads=3, text_heads=4, layer=1, head=2)


@pytest.fixture(autouse=True)
def float64():
    """Also in tables that the networks make for themselves."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def asking(state):
    return {name: value.clone().requires_grad_(True) for name, value in state.items()}


def far(found, wanted):
    wanted = wanted.detach()
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("tokens", [3, 9])
@pytest.mark.parametrize("seed", ["logit", "margin"])
@pytest.mark.parametrize("images", [1, 2])
def test_closed_form_is_the_gradient_that_autograd_finds(tokens, seed, images):
    _, itm, state = small_blip.networks(seed)
    image = torch.randn(images, 12, 96)
    ids, mask = torch.randint(small_blip.WORDS, (2, tokens)), torch.ones(2, tokens, dtype=torch.int32)
    seen = original.match(asking(state), SIZES, image.expand(2, -1, -1), ids, mask)
    cam, logits = itm(image, ids, mask)
    wanted = original.gradcam(seen, SIZES, mask, seed)
    assert (wanted > 0).double().mean() > 0.2
    assert far(cam, wanted) <= 1e-10
    assert far(logits, seen.logits) <= 1e-12


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_map_may_be_taken_from_any_block_that_others_follow(depth):
    config = small_blip.itm_config()
    itm = small_blip.filled(BlipItm(replace(config, depth=depth, layer=depth - 2, head=0)))
    state, image = itm.state_dict(), torch.randn(1, 12, 96)
    ids, mask = torch.randint(small_blip.WORDS, (1, 7)), torch.ones(1, 7, dtype=torch.int32)
    sizes = original.Sizes(text_heads=4, layer=depth - 2, head=0)
    wanted = original.gradcam(original.match(asking(state), sizes, image, ids, mask), sizes, mask)
    assert far(itm(image, ids, mask)[0], wanted) <= 1e-10


def test_padding_changes_neither_map_nor_logits():
    _, itm, _ = small_blip.networks()
    image, ids = torch.randn(1, 12, 96), torch.randint(small_blip.WORDS, (2, 9))
    mask = torch.ones(2, 9, dtype=torch.int32)
    mask[1, 6:] = 0
    cam, logits = itm(image, ids, mask)
    alone, own = itm(image, ids[1:, :6], mask[1:, :6])
    assert far(cam[1, :6], alone[0]) <= 1e-12
    assert far(logits[1], own[0]) <= 1e-12
    assert not cam[1, 6:].any()


def test_image_encoder_leaves_out_what_is_zero_in_the_image():
    vit, _, state = small_blip.networks()
    image, keep = torch.randn(2, 3, 80, 80), (torch.rand(2, 1, 5, 5) > 0.3).double()
    shown = image * keep.repeat_interleave(16, 2).repeat_interleave(16, 3)
    assert far(vit(image, keep), original.image_tokens(state, SIZES, shown)) <= 1e-12


def test_positions_are_resized_as_when_the_checkpoint_is_loaded():
    vit, _, state = small_blip.networks()
    image, keep = torch.randn(1, 3, 64, 48), torch.ones(1, 1, 4, 3)
    table = state["visual_encoder.pos_embed"]
    grid = table[:, 1:].reshape(1, 5, 5, -1).permute(0, 3, 1, 2)
    smaller = torch.nn.functional.interpolate(grid, size=(4, 3), mode="bicubic", align_corners=False)
    state["visual_encoder.pos_embed"] = torch.cat((table[:, :1], smaller.flatten(2).transpose(1, 2)), dim=1)
    with fixing(vit, image, keep) as made:
        assert far(made, original.image_tokens(state, SIZES, image)) <= 1e-12
