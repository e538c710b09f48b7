import numpy as np
import pytest
from PIL import Image

from edgeseg.preprocess import preprocess, resize_rgb
from edgeseg.schema import ImageTransform

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@pytest.fixture
def two_threads():
    """Torch resizes with other roundings where it has one thread alone."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def random_rgb(height: int, width: int):
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_padding_is_zero_after_normalisation():
    made = preprocess(random_rgb(20, 30), (20, 30), ImageTransform(MEAN, STD), (32, 64))
    assert made.shape == (1, 3, 32, 64)
    assert made.dtype == np.float32
    assert made.flags.c_contiguous
    assert not made[:, :, 20:].any()
    assert not made[:, :, :, 30:].any()


def test_pixels_are_normalised_per_channel():
    rgb = random_rgb(5, 7)
    made = preprocess(rgb, (5, 7), ImageTransform(MEAN, STD), (5, 7))
    wanted = (rgb.astype(np.float64) - MEAN) / STD
    assert np.allclose(made[0].transpose(1, 2, 0), wanted, atol=1e-6)


def test_what_lies_outside_the_valid_part_is_not_read():
    rgb = random_rgb(8, 8)
    changed = rgb.copy()
    changed[6:] = 255 - changed[6:]
    transform = ImageTransform(MEAN, STD, 0.5)
    first, second = (preprocess(image, (6, 8), transform, (8, 8)) for image in (rgb, changed))
    assert np.array_equal(first, second)


def test_half_scale_is_the_mean_of_two_by_two():
    whole = preprocess(random_rgb(64, 96), (60, 90), ImageTransform(MEAN, STD), (64, 96))
    half = preprocess(random_rgb(64, 96), (60, 90), ImageTransform(MEAN, STD, 0.5), (64, 96))
    mean = whole.astype(np.float64).reshape(1, 3, 32, 2, 48, 2).mean((3, 5))
    assert np.abs(half - mean).max() < 5e-7


@pytest.mark.torch
@pytest.mark.parametrize("scale", [0.5, 0.7])
@pytest.mark.parametrize("canvas", [(64, 96), (33, 45), (640, 864), (7, 5), (101, 203)])
@pytest.mark.usefixtures("two_threads")
def test_scale_is_torchs_interpolate(scale, canvas):
    import torch
    import torch.nn.functional as F

    rgb = random_rgb(*canvas)
    whole = preprocess(rgb, canvas, ImageTransform(MEAN, STD), canvas)
    wanted = F.interpolate(torch.from_numpy(whole), scale_factor=scale, mode="bilinear").numpy()
    made = preprocess(rgb, canvas, ImageTransform(MEAN, STD, scale), canvas)
    assert made.shape == wanted.shape
    assert np.abs(made - wanted).max() < 1e-5  # torch rounds positions of small images in another way


@pytest.mark.torch
@pytest.mark.parametrize("canvas", [(320, 448), (640, 640), (224, 256)])
@pytest.mark.usefixtures("two_threads")
def test_half_scale_has_torchs_bits(canvas):
    import torch
    import torch.nn.functional as F

    rgb = random_rgb(*canvas)
    whole = torch.from_numpy(preprocess(rgb, canvas, ImageTransform(MEAN, STD), canvas))
    wanted = F.interpolate(whole, scale_factor=0.5, mode="bilinear").numpy()
    assert np.array_equal(preprocess(rgb, canvas, ImageTransform(MEAN, STD, 0.5), canvas), wanted)


def test_resize_is_pillows_bilinear_on_uint8():
    rgb = random_rgb(31, 47)
    wanted = np.asarray(Image.fromarray(rgb).resize((64, 40), Image.Resampling.BILINEAR))
    assert np.array_equal(resize_rgb(rgb, (40, 64)), wanted)
    assert resize_rgb(rgb, (31, 47)) is rgb
