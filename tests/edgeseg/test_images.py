import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from edgeseg.errors import InputError
from edgeseg.images import ImageOptions, load

RGB = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)


def save(image: Image.Image, path: Path, **options) -> Path:
    image.save(path, **options)
    return path


def test_path_pil_and_array_give_the_same_pixels(tmp_path):
    path = save(Image.fromarray(RGB), tmp_path / "a.png")
    for source in (path, str(path), Image.fromarray(RGB), RGB):
        loaded = load(source)
        assert np.array_equal(loaded.rgb, RGB)
        assert loaded.notes == ()


@pytest.mark.parametrize(
    ("mode", "word"),
    [("1", "black"), ("L", "grey"), ("LA", "alpha"), ("P", "palette"), ("RGBA", "alpha"), ("CMYK", "CMYK")],
)
def test_other_modes_are_converted_and_reported(mode, word):
    loaded = load(Image.fromarray(RGB).convert(mode))
    assert loaded.rgb.shape == RGB.shape
    assert word in loaded.notes[0]


def test_palette_with_transparency_gives_no_warning(tmp_path):
    image = Image.fromarray(RGB).convert("P")
    path = save(image, tmp_path / "p.png", transparency=bytes(range(16)))
    assert load(path).notes == ("palette colours were converted to RGB",)


def test_exif_rotation_is_applied_and_reported(tmp_path):
    image = Image.fromarray(RGB)
    exif = image.getexif()
    exif[0x0112] = 6
    loaded = load(save(image, tmp_path / "a.png", exif=exif))
    assert np.array_equal(loaded.rgb, np.rot90(RGB, -1))
    assert "upright" in loaded.notes[0]


def test_one_pixel_is_an_image():
    assert load(RGB[:1, :1]).rgb.shape == (1, 1, 3)


def png16(path: Path, colour: bool) -> Path:
    """A 16-bit PNG, written by hand: Pillow writes none in colour."""
    import struct
    import zlib

    samples = (np.arange(4 * 5 * (3 if colour else 1)) * 1000).astype(">u2").reshape(4, -1)
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 5, 4, 16, 2 if colour else 0, 0, 0, 0))]
    parts += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in parts)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


@pytest.mark.parametrize("colour", [True, False])
def test_16_bit_is_refused_and_scaled_on_demand(tmp_path, colour):
    path = png16(tmp_path / "a.png", colour)
    with pytest.raises(InputError, match="--16bit scale"):
        load(path)
    loaded = load(path, ImageOptions(bits16="scale"))
    assert loaded.rgb[0, 1, 0] == (3000 if colour else 1000) // 256
    assert loaded.rgb[3, 4, 2] == (59 if colour else 19) * 1000 // 256
    assert "256" in loaded.notes[0]


def test_16_bit_tiff_and_array_are_recognised(tmp_path):
    samples = np.full((3, 4), 512, np.uint16)
    path = save(Image.fromarray(samples), tmp_path / "a.tiff")
    colour = np.repeat(samples[..., None], 3, 2)
    for source in (path, colour, Image.fromarray(samples)):
        with pytest.raises(InputError, match="16 bits"):
            load(source)
        assert (load(source, ImageOptions(bits16="scale")).rgb == 2).all()


def test_32_bit_samples_are_refused():
    with pytest.raises(InputError, match="32 bits"):
        load(Image.fromarray(np.full((2, 2), 70000, np.int32)), ImageOptions(bits16="scale"))
    with pytest.raises(InputError, match="colour mode is F"):
        load(Image.fromarray(np.zeros((2, 2), np.float32)))


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_animation_is_refused_and_a_frame_taken_on_demand(tmp_path, suffix):
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "lime", "blue")]
    path = save(frames[0], tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="--frame 0"):
        load(path)
    loaded = load(path, ImageOptions(frame=1))
    assert loaded.rgb[3, 3].argmax() == 1
    assert "frame 1 of 3" in loaded.notes[0]
    with pytest.raises(InputError, match="no frame 3"):
        load(path, ImageOptions(frame=3))


def test_frame_0_of_a_still_image_is_itself(tmp_path):
    path = save(Image.fromarray(RGB), tmp_path / "a.png")
    assert load(path, ImageOptions(frame=0)).notes == ()
    with pytest.raises(InputError, match="no frame 1"):
        load(path, ImageOptions(frame=1))


def test_camera_jpeg_with_previews_is_a_photo(tmp_path):
    image = Image.fromarray(RGB)
    path = save(image, tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[image])
    assert "MPO" in load(path).notes[0]


def test_pixel_limit_is_checked_before_decoding(tmp_path):
    path = save(Image.new("L", (400, 300)), tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:60])  # header only: decoding it would fail
    with pytest.raises(InputError, match=r"300x400 pixels and the limit is 1000; .*--max-pixels"):
        load(path, ImageOptions(max_pixels=1000))


def test_pillows_own_limit_neither_warns_nor_stops(tmp_path, monkeypatch):
    path = save(Image.new("L", (40, 30)), tmp_path / "a.png")
    for limit in (1000, 100):  # Pillow warns above its limit, and raises above twice its limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert load(path).rgb.shape == (30, 40, 3)
        assert limit == Image.MAX_IMAGE_PIXELS


def noisy_jpeg(path: Path) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    return save(Image.fromarray(noise), path).read_bytes()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff", "gif", "bmp"])
def test_truncated_file_is_one_clear_error(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    content = noisy_jpeg(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"undamaged copy|convert it"):
        load(path)


def test_image_that_was_opened_but_is_truncated_is_one_clear_error(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(noisy_jpeg(path)[:2000])
    with Image.open(path) as image, pytest.raises(InputError, match="use the image: it is damaged"):
        load(image)


@pytest.mark.parametrize(
    ("content", "word"), [(b"", "empty"), (b"hello", "no image format"), (b"\x89PNG\r\n\x1a\n", "image")]
)
def test_what_is_no_image_is_one_clear_error(tmp_path, content, word):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=word):
        load(path)


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("none.jpg", "no such file"),
        (".", "folder"),
        ("film.MP4", "not supported yet"),
        ("/dev/video0", "not supported yet"),
        ("rtsp://camera/1", "not supported yet"),
        ("https://example.org/a.jpg", "download"),
        (3, "it is int"),
        (np.zeros((4, 4), np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
    ],
)
def test_unusable_sources_say_what_to_do(source, word):
    with pytest.raises(InputError, match=word) as raised:
        load(source)
    assert raised.value.todo


@pytest.mark.parametrize("options", [{"bits16": "clip"}, {"max_pixels": 0}])
def test_unknown_option_values_are_refused(options):
    with pytest.raises(InputError):
        ImageOptions(**options)


def test_damaged_exif_is_reported_and_not_fatal(tmp_path):
    image = Image.fromarray(RGB)
    path = save(image, tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    loaded = load(path)
    assert loaded.rgb.shape == RGB.shape
    assert "EXIF" in loaded.notes[0]


def test_loaded_pixels_are_the_callers_to_keep():
    image = Image.fromarray(RGB)
    rgb = load(image).rgb
    assert rgb.flags.writeable
    ImageDraw.Draw(image).rectangle((0, 0, 8, 8), fill="white")
    assert np.array_equal(rgb, RGB)


def test_images_need_no_engine_sdk():
    code = "import sys, edgeseg.images; sys.exit(any(n in sys.modules for n in ('onnxruntime', 'torch', 'onnx')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
