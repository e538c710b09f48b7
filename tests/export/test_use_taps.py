"""The paper's encoder: DINOv2 against timm, taps against both encoders run block by block, the bundle end to end."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import edgeseg
from edgeseg.errors import CheckpointError, InputError
from edgeseg.export import sam, use, use_taps
from edgeseg.export.bundle import Checkpoint, choose_recipe, export_bundle
from edgeseg.export.inputs import opened
from edgeseg.export.nets.dinov2 import DinoViT
from tests.export.small_sam import authors
from tests.export.small_taps import GRID, dino, recipe, state
from tests.export.small_use import SIDE, clip
from tests.reference.sam_masks import photo

pytestmark = [pytest.mark.torch, pytest.mark.onnx]


def test_dinov2_is_timms_block_by_block():
    theirs = dino(grid=7)
    own = {name: value for name, value in theirs.state_dict().items() if not use_taps.IGNORED.fullmatch(name)}
    mine = DinoViT(use_taps.dino_sizes({f"dino.{name}": value for name, value in own.items()}))
    mine.load_state_dict(own)
    image = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    expected = theirs.forward_intermediates(image, return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True)
    tokens = mine.embed(image)
    for block, (patches, prefix) in zip(mine.blocks, expected, strict=True):
        tokens = block(tokens)
        torch.testing.assert_close(tokens, torch.cat((prefix, patches), dim=1), rtol=1e-4, atol=1e-4)


def test_positions_are_resized_by_the_published_factor():
    own = {name: value for name, value in dino().state_dict().items() if not use_taps.IGNORED.fullmatch(name)}
    mine = DinoViT(use_taps.dino_sizes({f"dino.{name}": value for name, value in own.items()}))
    mine.load_state_dict(own)
    table = own["pos_embed"][:, 1:].reshape(1, GRID, GRID, 64).permute(0, 3, 1, 2)
    wanted = F.interpolate(table, scale_factor=(7.1 / GRID, 7.1 / GRID), mode="bicubic")
    found = mine._positions((7, 7)).reshape(1, 7, 7, 64).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, wanted)
    exact = F.interpolate(table, size=(7, 7), mode="bicubic")
    assert (found - exact).abs().max() > 1e-3


@pytest.mark.parametrize("token", ["add", "none"])
def test_patches_are_the_sum_of_their_levels(tmp_path, token):
    made = use_taps.load(tmp_path / "a.pth", state(), recipe(class_token=token))
    encoder = made.encoder
    images = torch.randn(2, 1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    wanted = torch.zeros(1, 50, 32)
    sides = ((encoder.clip, encoder.clip.resblocks, (4, 8)), (encoder.second, encoder.second.blocks, (2, 4)))
    own = [*encoder.clip_levels, *encoder.second_levels]
    for side, (trunk, blocks, taps) in enumerate(sides):
        tokens = trunk.embed(images[side])
        for index, block in enumerate(blocks, start=1):
            tokens = block(tokens)
            if index in taps:
                level = own[2 * side + taps.index(index)]
                wanted += F.layer_norm(tokens @ level.linear.weight.t(), (32,)) / 4
    expected = wanted[:, 1:] + (wanted[:, :1] if token == "add" else 0)
    torch.testing.assert_close(encoder(images[0], images[1]), expected, rtol=1e-4, atol=1e-5)
    assert not made.trained


def test_trained_weights_are_taken_from_the_file(tmp_path):
    first = use_taps.load(tmp_path / "a.pth", state(), recipe())
    mine = {f"use.{name}": value + 1 for name, value in use_taps.drawn(first.encoder, first.head).items()}
    found = use_taps.load(tmp_path / "a.pth", state() | mine, recipe())
    assert found.trained
    assert torch.equal(found.head.project.weight, first.head.project.weight + 1)
    assert torch.equal(found.encoder.scales, first.encoder.scales + 1)
    mine.pop("use.project.bias")
    with pytest.raises(CheckpointError, match=r"1 missing: project\.bias"):
        use_taps.load(tmp_path / "a.pth", state() | mine, recipe())


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"fetch dinov2_vitl14_pretrain\.pth .* and add --dino"):
        use.load_clip(tmp_path / "a.pth", dict(clip().state_dict()), recipe())
    with pytest.raises(CheckpointError, match="CLIP's patches have 16 pixels and DINOv2's 8"):
        use.load_clip(tmp_path / "a.pth", state(patch=8), recipe())
    odd = state()
    odd["dino.pos_embed"] = odd["dino.pos_embed"][:, 1:]
    with pytest.raises(CheckpointError, match="position table has 24 rows"):
        use.load_clip(tmp_path / "a.pth", odd, recipe())
    torch.save(authors().state_dict(), tmp_path / "sam.pth")
    with pytest.raises(InputError, match="leave --dino out"):
        export_bundle(Checkpoint(tmp_path / "sam.pth", "sam-b", dino=tmp_path / "sam.pth"), [], tmp_path / "a.bundle")


def test_a_dinov2_beside_clip_chooses_the_papers_preset(tmp_path):
    torch.save(clip().state_dict(), tmp_path / "clip.pth")
    torch.save(dino().state_dict(), tmp_path / "dino.pth")
    alone, both = Checkpoint(tmp_path / "clip.pth"), Checkpoint(tmp_path / "clip.pth", dino=tmp_path / "dino.pth")
    assert choose_recipe(alone, opened(alone)).name == "use-clip"
    assert choose_recipe(both, opened(both)).name == "use-l"
    assert choose_recipe(replace(alone, family="use-l"), opened(alone)).name == "use-l"


def test_the_bundle_labels_a_photo_and_says_that_it_is_untrained(small_tapped):
    manifest = small_tapped.manifest
    assert manifest.recipe["trained"] is False
    assert manifest.recipe["logit_scale"] == 100
    assert "untrained" in manifest.source.licence
    assert "; dino.pth: sha256 " in manifest.source.licence
    assert manifest.images["image_dino"].mean == sam.MEAN
    with edgeseg.open(small_tapped.path, "onnxruntime", threads=1) as segmenter:
        result = segmenter(photo("china"), ["roof", "tree"])
        found = segmenter.segments(photo("china"))
    assert result.none_pixels == 0
    assert found.embeddings is not None
    np.testing.assert_allclose(np.linalg.norm(found.embeddings, axis=1), 1, atol=1e-5)
