"""Full-size SAM and CLIP against the published figures, and against formulas.

The published "GFLOPs" of SAM are multiply-accumulates: 369, 1311 and 2732 leave attention out, 486, 1493 and 2981 hold
it. CLIP's are the usual ones. See the cost table of the reference notes (peers, B.6).
"""

import pytest

from tests.benches.model.bare import clip_image, clip_text, sam_official

pytestmark = pytest.mark.onnx

GIGA = 1e9
SAM = {"B": (768, 12, 12), "L": (1024, 24, 16), "H": (1280, 32, 16)}
PUBLISHED = {"B": (369, 115, 486), "L": (1311, 177, 1493), "H": (2732, 241, 2981)}
SAVED = {"B": 15.2, "L": 67, "H": 147}


@pytest.mark.parametrize("size", SAM)
def test_official_sam_has_the_published_cost(size):
    found = sam_official(*SAM[size])
    weights, attention, total = PUBLISHED[size]
    assert found.macs["weights"] / GIGA == pytest.approx(weights, rel=0.01)
    assert found.macs["activations"] / GIGA == pytest.approx(attention, rel=0.01)
    assert found.total_macs / GIGA == pytest.approx(total, rel=0.01)
    assert found.uncounted == {}


@pytest.mark.parametrize("size", SAM)
def test_relative_positions_of_sam_are_named_apart(size):
    width, depth, _ = SAM[size]
    each_global, each_window = 4096 * (64 + 64) * width, 4900 * (14 + 14) * width
    assert sam_official(*SAM[size]).macs["positions"] == 4 * each_global + (depth - 4) * each_window


@pytest.mark.parametrize("size", SAM)
def test_products_of_official_sam_follow_the_formula_to_the_last_one(size):
    width, depth, _ = SAM[size]
    mlp, qkv_and_projection = 8 * width**2, 4 * width**2
    windows = depth - 4
    blocks = depth * 4096 * mlp + 4 * 4096 * qkv_and_projection + windows * 4900 * qkv_and_projection
    ends = 4096 * (3 * 16 * 16 * width + width * 256 + 9 * 256 * 256)
    assert sam_official(*SAM[size]).macs["weights"] == blocks + ends
    # What the padding of windows costs is what the shipped form saves by padding after the products.
    assert windows * (4900 - 4096) * qkv_and_projection / GIGA == pytest.approx(SAVED[size], rel=0.01)


@pytest.mark.parametrize(
    ("patch", "side", "sizes", "published"),
    [
        (32, 224, (768, 12, 12), 4.4),
        (16, 224, (768, 12, 12), 17.6),
        (16, 384, (768, 12, 12), 55.5),
        (16, 640, (768, 12, 12), 184),
        (14, 224, (1024, 24, 16), 81),
        (14, 336, (1024, 24, 16), 191),
        (14, 448, (1024, 24, 16), 362),
        (14, 560, (1024, 24, 16), 610),
    ],
)
def test_clip_has_the_published_cost(patch, side, sizes, published):
    found = clip_image(patch, side, sizes, 512)
    assert found.total_macs / GIGA == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize(("sizes", "embedding", "published"), [((512, 12, 8), 512, 3.0), ((768, 12, 12), 768, 6.65)])
def test_text_encoder_has_the_published_cost_of_a_prompt(sizes, embedding, published):
    assert clip_text(sizes, embedding).total_macs / GIGA == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize("size", SAM)
def test_parameters_are_every_stored_number(size):
    width, depth, heads = SAM[size]
    blocks = depth * (12 * width**2 + 9 * width)
    tables = 2 * (width // heads) * (4 * 64**2 + (depth - 4) * 14**2)
    found = sam_official(*SAM[size])
    assert found.parameters == blocks + tables + (768 + 1) * width + 256 * width + 9 * 256 * 256
    assert found.io_bytes == 4 * (3 * 1024 * 1024 + 256 * 64 * 64)
    indices = found.weights_bytes - 4 * found.parameters
    assert 0 < indices < 20_000  # shapes and bounds, which are no parameters
