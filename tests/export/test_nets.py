"""Every exact rewrite against the plain formulation of tests/reference, in float64, where only rounding is left."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from edgeseg.export.nets.clip import ClipConfig, ClipTail, ClipText, ClipTrunk
from edgeseg.export.nets.ebseg import EBSeg, Score
from edgeseg.export.nets.fixed import Fixed, fixing
from edgeseg.export.nets.layers import max_pool_to, sine_positions
from edgeseg.export.nets.mask_decoder import BlockingMask
from edgeseg.export.nets.pixel_decoder import DecoderConfig, DeformableAttention
from edgeseg.export.nets.sam import SamConfig, SamEncoder
from tests.export.small import EMBEDDING, fill, small_config
from tests.reference import ebseg_decoders, ebseg_encoders, ebseg_original
from tests.reference.part import Part, resize
from tests.reference.sizes import Sizes

pytestmark = pytest.mark.torch

COMMON: Any = {
    **{"clip_width": 64, "clip_heads": 2, "clip_trunk": 3, "clip_tail": 2, "surgery_start": 1, "embedding": EMBEDDING},
    **{"text_width": 64, "text_heads": 1, "text_depth": 2, "sam_width": 64, "sam_heads": 2, "sam_depth": 6},
    **{"taps": (1, 2, 4, 5), "width": 128, "encoder_layers": 2, "encoder_hidden": 128},
    **{"decoder_layers": 3, "decoder_hidden": 96, "queries": 10},
}
SIZES = {
    "b": Sizes(**COMMON, clip_patch=16, clip_grid=7, clip_scale=0.5),
    "l": Sizes(**COMMON, clip_patch=14, clip_grid=9, clip_scale=0.7),
}
CANVASES = {"b": (96, 160), "l": (128, 224)}  # at the second, neither axis pools uniformly onto CLIP's grid


@pytest.fixture(autouse=True)
def float64():
    """Also in tables that the networks make for themselves."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(autouse=True)
def same_tables(monkeypatch):
    """The reference's own tables are float32; the sine table, which both sides round, is compared by itself below."""

    def centres(shapes, _):
        return torch.tensor([((x + 0.5) / w, (y + 0.5) / h) for h, w in shapes for y in range(h) for x in range(w)])

    monkeypatch.setattr(ebseg_decoders, "centres", centres)
    monkeypatch.setattr(ebseg_decoders, "sine", lambda width, size, _: sine_positions(size, width)[0].double())


def part(module, prefix=""):
    """The module's weights as the reference reads them."""
    return Part({prefix + name: value for name, value in module.state_dict().items()}, prefix)


def assert_equal(found, wanted, tolerance=1e-9):
    assert found.shape == wanted.shape
    assert float((found - wanted).abs().max()) <= tolerance * max(1.0, float(wanted.abs().max()))


@pytest.mark.parametrize("size", [(10, 6), (14, 28), (15, 29), (2, 2)])
@pytest.mark.parametrize("window", [14, 5])
def test_sam_is_the_plain_attention_with_padded_windows(size, window):
    config = SamConfig(32, 3, 2, 4, 16, window, (1,), 48)
    encoder = fill(SamEncoder(config))
    sizes = Sizes(sam_width=32, sam_heads=2, sam_depth=3, sam_patch=4, sam_grid=16, window=window, taps=(1,))
    image = torch.randn(2, 3, size[0] * 4, size[1] * 4)
    x = part(encoder).conv("patch_embed.proj", image, 4).permute(0, 2, 3, 1)
    table = encoder.pos_embed.permute(0, 3, 1, 2)
    x = x + F.interpolate(table, size=size, mode="bicubic").permute(0, 2, 3, 1)
    for i in range(2):
        x = ebseg_encoders.sam_block(part(encoder).at(f"blocks.{i}"), x, 2, None if i in sizes.taps else window)
    assert_equal(encoder(image)[0], x.flatten(1, 2))


@pytest.mark.parametrize("like", ["b", "l"])
@pytest.mark.parametrize("size", [(7, 7), (4, 7), (9, 3), (1, 1)])
def test_clips_trunk_is_the_plain_one(like, size):
    trunk = fill(ClipTrunk(small_config(like).clip))
    patch = SIZES[like].clip_patch
    image = torch.randn(2, 3, size[0] * patch + 3, size[1] * patch)  # what is left of a patch is cut off
    wanted = ebseg_encoders.clip_trunk(part(trunk), SIZES[like], image)
    found = trunk(image)
    for tap, index in zip(found[:2], (1, 2), strict=True):
        assert_equal(tap, wanted.maps[index].flatten(2).transpose(1, 2))
    assert_equal(found[2], wanted.tokens.transpose(0, 1))
    assert_equal(found[3], wanted.surgery.transpose(0, 1))


@pytest.mark.parametrize("grid", [(3, 5), (4, 4)])
def test_the_tail_is_the_one_attention_over_masks_and_patches(grid):
    """Masks that nobody else sees by entries of -100, one score matrix for all: each part for itself here."""
    sizes, length, stride = SIZES["b"], grid[0] * grid[1], 4
    tail = fill(ClipTail(small_config().clip))
    tokens, surgery = torch.randn(2, 2, 1 + length, 64)
    bias = 3 * torch.randn(2, 2, 10, grid[0] * stride, grid[1] * stride)
    masks = torch.randn(2, 10, grid[0] * stride, grid[1] * stride)
    masks[:, 3] = -1.0  # inside no cell
    maps = {3: torch.zeros(2, 64, *grid)}
    features = ebseg_encoders.ClipFeatures(maps, tokens.transpose(0, 1), surgery.transpose(0, 1))
    wanted, dense = ebseg_encoders.clip_tail(part(tail), sizes, features, bias)
    pooled = F.adaptive_max_pool2d(bias.flatten(1, 2), grid).reshape(2, 2, 10, length)
    found = tail(tokens, surgery, pooled, masks, grid)
    assert_equal(found[0], wanted)
    assert_equal(found[1], ebseg_original.mask_pool(resize(masks, grid), dense))
    assert float(found[1][:, 3].abs().max()) == 0


SIZES_OF_MAPS = [(3, 5), (6, 10), (12, 20)]


@pytest.mark.parametrize("reach", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("batch", [1, 2])
def test_gathered_samples_are_those_of_grid_sample(reach, batch):
    """A reach of 30 cells puts most samples outside of every map, and some on its edge."""
    attention = fill(DeformableAttention(DecoderConfig(width=64)))
    attention.sampling_offsets.weight *= reach
    attention.sampling_offsets.bias *= reach * 50
    length = sum(rows * columns for rows, columns in SIZES_OF_MAPS)
    query, value = torch.randn(2, batch, length, 64)
    wanted = ebseg_decoders.deformable(part(attention), SIZES["b"], (query, value), SIZES_OF_MAPS)
    assert_equal(attention(query, value, SIZES_OF_MAPS), wanted)


@pytest.mark.parametrize("shift", [-1.0, -0.5, 0.0, 0.5, 1.0, -1.5, 40.0, -1e6, 1e6])
def test_samples_on_edges_and_far_outside_are_those_of_grid_sample(shift):
    attention = fill(DeformableAttention(DecoderConfig(width=64)))
    attention.sampling_offsets.weight *= 0
    attention.sampling_offsets.bias[:] = shift
    length = sum(rows * columns for rows, columns in SIZES_OF_MAPS)
    query, value = torch.randn(2, 1, length, 64)
    wanted = ebseg_decoders.deformable(part(attention), SIZES["b"], (query, value), SIZES_OF_MAPS)
    assert_equal(attention(query, value, SIZES_OF_MAPS), wanted)


@pytest.mark.parametrize("output", [(4, 4), (5, 7), (1, 1), (12, 20), (11, 3)])
def test_pooling_with_static_windows_is_adaptive_max_pooling(output):
    image = torch.randn(2, 3, 12, 20)
    assert torch.equal(max_pool_to(image, output), F.adaptive_max_pool2d(image, output))


@pytest.mark.parametrize("length", [8, 32, 56, 160])
@pytest.mark.parametrize("output", [3, 6, 11, 32, 43])
def test_pooling_is_adaptive_also_where_windows_overlap(length, output):
    image = torch.randn(1, 1, length, length + 1)
    size = min(output, length), output // 2
    assert torch.equal(max_pool_to(image, size), F.adaptive_max_pool2d(image, size))


@pytest.mark.parametrize("size", [(5, 7), (20, 20), (1, 3)])
def test_the_sine_table_is_the_detectors(size):
    torch.set_default_dtype(torch.float32)
    half, rows = 32, torch.arange(1.0, size[0] + 1) / (size[0] + 1e-6) * 2 * torch.pi
    table = sine_positions(size, 64)[0].reshape(*size, 64)
    assert_equal(table[:, 0, 4], (rows / 10000 ** (4 / half)).sin(), 1e-6)
    assert_equal(table[:, 0, 5], (rows / 10000 ** (4 / half)).cos(), 1e-6)
    columns = torch.arange(1.0, size[1] + 1) / (size[1] + 1e-6) * 2 * torch.pi
    assert_equal(table[0, :, 32 + 7], (columns / 10000 ** (6 / half)).cos(), 1e-6)


def plain_head(model, sizes, sam, clip):
    """The reference's fusion, pixel and mask decoder; `sam` as tokens on `grid`, `clip` as ClipFeatures."""
    head, grid = part(model.sem_seg_head), sam[1]
    scales = (("res2", 4.0), ("res3", 2.0), ("res4", 1.0), ("res5", 0.5))
    maps = {
        name: F.interpolate(x.transpose(1, 2).unflatten(2, grid), scale_factor=scale, mode="bilinear")
        for x, (name, scale) in zip(sam[0], scales, strict=True)
    }
    ebseg_original.fuse(head.at("clip_fusion_layers"), sizes, maps, clip)
    features, levels = ebseg_decoders.pixel_decoder(head.at("pixel_decoder"), sizes, maps)
    return ebseg_decoders.mask_decoder(head.at("predictor"), sizes, features, levels)


@pytest.mark.parametrize(("scale", "shift"), [(2.0, 0.5), (-1.5, -0.7), (0.0, 3.0)])
@pytest.mark.parametrize(("grid", "clip_grid"), [((6, 10), (3, 5)), ((8, 14), (6, 11)), ((2, 2), (1, 1))])
def test_the_head_is_the_plain_one(grid, clip_grid, scale, shift):
    """Projections in front of the enlarging, the bias on the queries' side, predictions made once."""
    model = fill(EBSeg(small_config(text=False)))
    scaling = model.sem_seg_head.predictor.bias_scaling
    scaling.weight[:], scaling.bias[:] = scale, shift
    sam = [torch.randn(2, grid[0] * grid[1], 64) for _ in range(4)]
    clip = [torch.randn(2, clip_grid[0] * clip_grid[1], 64) for _ in range(3)]
    maps = {i: x.transpose(1, 2).unflatten(2, clip_grid) for i, x in enumerate(clip, start=1)}
    features = ebseg_encoders.ClipFeatures(maps, sam[0], sam[0])
    wanted = plain_head(model, SIZES["b"], (sam, grid), features)
    masks, embedding, bias = model.sem_seg_head(tuple(sam), tuple(clip), (grid, clip_grid))
    assert_equal(masks, wanted.masks[-1])
    assert_equal(embedding, wanted.embeddings[-1])
    pooled = F.adaptive_max_pool2d(wanted.biases[-1].flatten(1, 2), clip_grid)
    assert_equal(bias, pooled.reshape(2, 2, 10, -1))


def test_masks_block_as_the_plain_threshold_does():
    """Logits below zero; a row that would be blocked everywhere, by any of both signs of zero, is not blocked."""
    logits = torch.tensor([[1.0, -1.0, 0.0, -0.0, -1e-3], [-1, -2, -3, -1e-3, -1e9], [0, -1, -1, -1, -1]])[None]
    blocked = logits.sigmoid() < 0.5
    blocked[blocked.all(-1)] = False
    found = BlockingMask()(logits, torch.eye(5))
    assert found.shape == (1, 1, 3, 5)
    assert torch.equal(found[:, 0] == -1e4, blocked)
    assert not found[0, 0, 1].any()


def test_a_query_that_is_blocked_everywhere_attends_everywhere():
    """The whole decoder with a first query whose every mask is empty."""
    model = fill(EBSeg(small_config(text=False)))
    last = model.sem_seg_head.predictor.mask_embed.layers[2]
    last.weight *= 0.0
    last.bias[:] = -1.0
    model.sem_seg_head.pixel_decoder.mask_features.weight.abs_()
    model.sem_seg_head.pixel_decoder.mask_features.bias[:] = 1.0
    sam, clip = [torch.randn(1, 24, 64) for _ in range(4)], [torch.randn(1, 6, 64) for _ in range(3)]
    maps = {i: x.transpose(1, 2).unflatten(2, (2, 3)) for i, x in enumerate(clip, start=1)}
    wanted = plain_head(model, SIZES["b"], (sam, (4, 6)), ebseg_encoders.ClipFeatures(maps, sam[0], sam[0]))
    assert float(wanted.masks[-1].max()) < 0
    masks, embedding, _ = model.sem_seg_head(tuple(sam), tuple(clip), ((4, 6), (2, 3)))
    assert_equal(masks, wanted.masks[-1])
    assert_equal(embedding, wanted.embeddings[-1])


@pytest.mark.parametrize("classes", [1, 2, 37])
@pytest.mark.parametrize("trained", [0.0, 0.5, 1.0])
def test_scores_are_the_authors_formula(classes, trained):
    model = fill(EBSeg(small_config(text=False)))
    text = F.normalize(torch.randn(classes, EMBEDDING), dim=-1)
    overlap = (torch.rand(classes) < trained).double()
    a, b, d = torch.randn(3, 1, 10, EMBEDDING)
    a, b, d = F.normalize(a, dim=-1), F.normalize(b, dim=-1), d / 8
    background = F.normalize(model.ov_classifier.bg_embed, dim=-1)
    scaled = model.ov_classifier.logit_scale.exp() * torch.cat((text, background))
    joint = ebseg_original.ensemble(SIZES["b"], (a @ scaled.T, b @ scaled.T, d @ scaled.T), overlap)
    assert_equal(Score(model)(a, b, d, text, overlap), joint.softmax(-1)[..., :-1], 1e-12)


@pytest.mark.parametrize("length", [3, 9, 20, 77])
def test_a_shortened_text_has_the_embedding_of_the_full_length(length):
    tower = fill(ClipText(64, 1, 2, 77, 50, embedding=32))
    words = torch.randint(1, 40, (5, length))
    eot = torch.tensor([length - 1, 2, length // 2 + 1, 1, length - 2])
    for row, end in zip(words, eot.tolist(), strict=True):
        row[end], row[end + 1 :] = 49, 0  # the end token is the largest number, zeros fill
    full = F.pad(words, (0, 77 - length))
    wanted = F.normalize(ebseg_encoders.encode_text(part(tower), Sizes(text_heads=1, text_depth=2), full), dim=-1)
    assert_equal(tower(words, eot), wanted)


@pytest.mark.parametrize("like", ["b", "l"])
def test_the_whole_model_is_the_authors(like):
    """From the pixels to the class probabilities of each query; float32 images, as both sides get them."""
    sizes, canvas = SIZES[like], CANVASES[like]
    model = fill(EBSeg(small_config(like, text=False)))
    image = torch.randint(0, 256, (3, *canvas)).double()
    text, overlap = F.normalize(torch.randn(6, EMBEDDING), dim=-1), torch.tensor([0.0, 1, 0, 1, 1, 0])
    background = F.normalize(model.ov_classifier.bg_embed, dim=-1)
    wanted = ebseg_original.forward(model.state_dict(), sizes, image, (torch.cat((text, background)), overlap))
    image_clip, image_sam = ebseg_original.network_inputs(image, sizes)
    *taps, tokens, surgery = model.clip_visual_extractor(image_clip)
    grid = image_clip.shape[2] // sizes.clip_patch, image_clip.shape[3] // sizes.clip_patch
    grids = (canvas[0] // 16, canvas[1] // 16), grid
    masks, a, bias = model.sem_seg_head(model.backbone(image_sam), (*taps, tokens[:, 1:]), grids)
    b, d = model.clip_rec_head(tokens, surgery, bias, masks, grid)
    assert_equal(masks, wanted.predictions.masks[-1])
    assert_equal(a, wanted.predictions.embeddings[-1])
    assert_equal(b, wanted.embeddings_b[-1])
    assert_equal(d, wanted.embedding_d)
    assert_equal(Score(model)(a, b, d, text, overlap), wanted.class_probs)


def test_fixing_changes_no_result_and_leaves_nothing_behind():
    trunk = fill(ClipTrunk(ClipConfig(64, 2, 16, 7, 3, 2, 1, 128, 32)))
    image, before = torch.randn(1, 3, 64, 96), set(trunk.state_dict())
    wanted = trunk(image)
    with fixing(trunk, image) as first:
        again = trunk(image)
        trunk.conv1.weight += 1  # a derived tensor no longer follows its parameter
        assert any(name.startswith("fixed_") for module in trunk.modules() for name in module._buffers)
        trunk.conv1.weight -= 1
    for x, y in zip((*first, *again, *trunk(image)), wanted * 3, strict=True):
        assert_equal(x, y, 1e-12)
    assert set(trunk.state_dict()) == before
    assert not [name for module in trunk.modules() for name in module._buffers]


def test_an_error_under_fixing_unfixes_the_network():
    trunk = fill(ClipTrunk(small_config().clip))

    def fail():
        with fixing(trunk, torch.randn(1, 3, 32, 32)):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not any(module._fixed or module._recording for module in trunk.modules() if isinstance(module, Fixed))
    assert trunk(torch.randn(1, 3, 64, 64))[2].shape == (1, 17, 64)
