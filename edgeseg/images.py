"""Reads an image, from a path, a PIL image or an array, as RGB pixels, and reports every conversion it makes.

What can be understood is converted and noted (grey, palette, alpha, CMYK, EXIF rotation). What would lose information
behind the user's back (16 bits, more than one frame) is refused, naming the option that takes it.
"""

from __future__ import annotations

import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from edgeseg.errors import InputError

MAX_PIXELS = 100_000_000
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")

_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)
_CONVERTED = {
    "1": "black and white was converted to RGB",
    "L": "grey was converted to RGB",
    "LA": "grey was converted to RGB and the alpha channel dropped",
    "La": "grey was converted to RGB and the alpha channel dropped",
    "P": "palette colours were converted to RGB",
    "PA": "palette colours were converted to RGB and the alpha channel dropped",
    "RGBA": "the alpha channel was dropped",
    "RGBa": "the alpha channel was dropped",
    "RGBX": "the fourth channel was dropped",
    "CMYK": "CMYK was converted to RGB without a colour profile",
    "YCbCr": "YCbCr was converted to RGB",
    "HSV": "HSV was converted to RGB",
}
_PIL_LOCK = threading.Lock()


@dataclass(frozen=True)
class ImageOptions:
    """What to do with images that are not plain 8-bit pictures.

    Attributes:
        frame: which frame of an animated image or page of a TIFF to take, from 0; None refuses those.
        bits16: "scale" divides 16-bit samples by 256 (rounded down); None refuses them.
        max_pixels: the largest height times width that is read.
    """

    frame: int | None = None
    bits16: str | None = None
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if self.bits16 not in (None, "scale"):
            raise InputError("read 16-bit images", f"bits16 is {self.bits16!r}", 'give bits16="scale" or leave it out')
        if self.max_pixels < 1:
            raise InputError("limit the pixels", f"max_pixels is {self.max_pixels}", "give a positive number")


@dataclass(frozen=True, eq=False)
class LoadedImage:
    """An image as the pipelines take it.

    Attributes:
        rgb: (H, W, 3) uint8 RGB, upright.
        notes: one sentence per conversion that was made.
    """

    rgb: npt.NDArray[np.uint8]
    notes: tuple[str, ...] = ()


def load(source: Any, options: ImageOptions | None = None) -> LoadedImage:
    """Read a path, a PIL image, or an (H, W, 3) uint8 RGB array.

    Raises:
        InputError: it is damaged, too large, no image, a video, or needs an option that was not given.
    """
    options = options or ImageOptions()
    if isinstance(source, np.ndarray):
        return _from_array(source, options)
    if isinstance(source, Image.Image):
        with _pillow() as remarks:
            loaded = _from_pil(source, "use the image", options)
        return _remarked(loaded, remarks)
    if isinstance(source, (str, os.PathLike)):
        return _from_path(os.fspath(source), options)
    found = f"it is {type(source).__name__}"
    raise InputError("use the image", found, "give a path, a PIL image or an (H, W, 3) uint8 RGB array")


def _from_array(array: npt.NDArray[Any], options: ImageOptions) -> LoadedImage:
    asked = "use the array"
    notes: tuple[str, ...] = ()
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise InputError(asked, f"its shape is {array.shape}", "give (H, W, 3) uint8 RGB")
    _check_pixels(asked, array.shape[0], array.shape[1], options)
    if array.dtype == np.uint16:
        notes = _check_bits16(asked, options)
        array = array >> 8
    elif array.dtype != np.uint8:
        raise InputError(asked, f"its dtype is {array.dtype}", "give (H, W, 3) uint8 RGB, 0 to 255")
    return LoadedImage(np.ascontiguousarray(array, np.uint8), notes)


def _from_path(text: str | bytes, options: ImageOptions) -> LoadedImage:
    path = Path(os.fsdecode(text))
    asked = f"read the image {path}"
    _refuse_video(asked, os.fsdecode(text))
    if path.is_dir():
        raise InputError(asked, "it is a folder", "give an image, or use `edgeseg run` on the folder")
    try:
        if path.stat().st_size == 0:
            raise InputError(asked, "it is empty", "get an undamaged copy")
        with _pillow() as remarks, Image.open(path) as image:
            loaded = _from_pil(image, asked, options)
        return _remarked(loaded, remarks)
    except FileNotFoundError:
        raise InputError(asked, "there is no such file", "check the path") from None
    except PermissionError:
        raise InputError(asked, "you may not read it", "change its permissions") from None
    except UnidentifiedImageError:
        found = "its content is no image format that Pillow knows"
        raise InputError(asked, found, "convert it to JPEG or PNG") from None
    except _DAMAGE as error:
        raise _damaged(asked, error) from None


def _refuse_video(asked: str, text: str) -> None:
    if text.startswith(("http://", "https://")):
        raise InputError(asked, "it is an address", "download it first")
    is_camera = text.startswith(("rtsp://", "rtmp://", "/dev/"))
    if is_camera or text.lower().endswith(VIDEO_SUFFIXES):
        found = "videos and cameras are not supported yet"
        raise InputError(asked, found, "extract frames as images first (for instance with ffmpeg)")


def _from_pil(image: Image.Image, asked: str, options: ImageOptions) -> LoadedImage:
    _check_pixels(asked, image.height, image.width, options)
    try:
        notes = _select_frame(image, asked, options)
        _check_pixels(asked, image.height, image.width, options)  # the frames of a TIFF differ in size
        sixteen = _is_16bit(image)
        if sixteen:
            notes += _check_bits16(asked, options)
        image.load()
    except _DAMAGE as error:
        raise _damaged(asked, error) from None
    upright, rotation = _upright(image)
    rgb, conversion = _to_rgb(upright, asked)
    return LoadedImage(rgb, notes + rotation + conversion)


def _check_pixels(asked: str, height: int, width: int, options: ImageOptions) -> None:
    if height * width > options.max_pixels:
        found = f"it has {height}x{width} pixels and the limit is {options.max_pixels}"
        raise InputError(asked, found, "resize it, or raise the limit (max_pixels=, --max-pixels)")
    if height * width == 0:
        raise InputError(asked, f"it has {height}x{width} pixels", "give an image with at least one pixel")


def _select_frame(image: Image.Image, asked: str, options: ImageOptions) -> tuple[str, ...]:
    frames = getattr(image, "n_frames", 1)
    if image.format == "MPO" and options.frame is None:  # a camera's JPEG with previews behind the picture
        return ("the first of its pictures was taken (MPO)",)
    if frames == 1 and options.frame in (None, 0):
        return ()
    if options.frame is None:
        found = f"it has {frames} frames"
        raise InputError(asked, found, "say which one to take (frame=0, --frame 0)")
    if not 0 <= options.frame < frames:
        found = f"there is no frame {options.frame} among its {frames}"
        raise InputError(asked, found, f"give a frame from 0 to {frames - 1}")
    image.seek(options.frame)
    return (f"frame {options.frame} of {frames} was taken",)


def _is_16bit(image: Image.Image) -> bool:
    """Whether its samples have 16 bits. Pillow reads 16-bit colour as mode RGB; its decoder's raw mode tells."""
    decoder = getattr(image, "tile", None) or [()]
    return image.mode.startswith("I") or any(";16" in str(part) for part in decoder[0])


def _check_bits16(asked: str, options: ImageOptions) -> tuple[str, ...]:
    if options.bits16 is None:
        raise InputError(asked, "it has 16 bits per sample", 'scale it to 8 bits (bits16="scale", --16bit scale)')
    return ("16-bit samples were divided by 256",)


def _upright(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    try:
        orientation = image.getexif().get(0x0112, 1)
        upright = ImageOps.exif_transpose(image)
    except _DAMAGE:
        return image, ("its EXIF data is damaged and was not used",)
    return upright, (f"it was turned upright (EXIF orientation {orientation})",) if orientation != 1 else ()


def _to_rgb(image: Image.Image, asked: str) -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    if image.mode == "RGB":
        return np.array(image), ()
    if image.mode.startswith("I"):
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 0xFFFF:
            raise InputError(asked, "its samples have 32 bits", "convert it to 8 or 16 bits")
        return np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=2), (_CONVERTED["L"],)
    if image.mode not in _CONVERTED:
        raise InputError(asked, f"its colour mode is {image.mode}", "convert it to RGB")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # straight to RGB, Pillow warns where the palette has transparency
        return np.array(image.convert("RGB")), (_CONVERTED["P"],)
    return np.array(image.convert("RGB")), (_CONVERTED[image.mode],)


def _damaged(asked: str, error: Exception) -> InputError:
    return InputError(asked, f"it is damaged ({error})", "get an undamaged copy")


@contextmanager
def _pillow() -> Iterator[list[warnings.WarningMessage]]:
    """Use Pillow on our terms, and yield what it warns of.

    Its process-wide pixel limit, which warns or raises, is replaced by `_check_pixels`; its warnings become notes.
    """
    with _PIL_LOCK, warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        saved = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield remarks
        finally:
            Image.MAX_IMAGE_PIXELS = saved


def _remarked(loaded: LoadedImage, remarks: list[warnings.WarningMessage]) -> LoadedImage:
    texts = dict.fromkeys(" ".join(str(remark.message).split()) for remark in remarks)
    return LoadedImage(loaded.rgb, (*loaded.notes, *texts))
