"""From RGB pixels to a network's input, bit for bit as the authors do it where that matters (PIL's uint8 resize)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgeseg.bilinear import resample, taps
from edgeseg.schema import ImageTransform, Size

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]


def resize_rgb(rgb: UInt8, size: Size) -> UInt8:
    """(H, W, 3) uint8 resized to `size` by PIL's bilinear filter, which antialiases; the array itself if it fits."""
    if rgb.shape[:2] == size:
        return rgb
    image = Image.fromarray(np.ascontiguousarray(rgb))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def preprocess(canvas_rgb: UInt8, valid: Size, transform: ImageTransform, canvas: Size) -> Float32:
    """One network input: normalise, pad with zeros at right and bottom, then scale.

    Args:
        canvas_rgb: (H, W, 3) uint8 RGB, at least `valid` in size; what lies outside `valid` is not read.
        valid: (H, W) of the resized image.
        transform: of the network's input.
        canvas: (H, W) to pad to.

    Returns:
        (1, 3, h, w) float32, contiguous; (h, w) is the canvas times `transform.scale`, rounded down.
    """
    mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (transform.mean, transform.std))
    height, width = valid
    padded = np.zeros((3, *canvas), np.float32)
    padded[:, :height, :width] = (canvas_rgb[:height, :width].transpose(2, 0, 1).astype(np.float32) - mean) / std
    return np.ascontiguousarray(_scaled(padded, transform.scale)[None])


def _scaled(planes: Float32, scale: float) -> Float32:
    """(3, H, W) as `F.interpolate(scale_factor=scale, mode="bilinear")` gives it.

    Along rows first, then along columns: torch's order, so that a scale of 0.5 gives torch's bits. That matters: a mask
    cell whose logit is nearly zero falls to one side or the other with the last bit of the input.
    """
    if scale == 1.0:
        return planes
    for axis in (2, 1):
        length = planes.shape[axis]
        planes = resample(planes, axis, taps(length, math.floor(length * scale), 1.0 / scale))
    return planes
