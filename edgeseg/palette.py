"""Colours of classes: a number always has the same colour, neighbours differ, and the first 255 are distinct."""

from __future__ import annotations

import colorsys

import numpy as np
import numpy.typing as npt

NONE_COLOUR = (0, 0, 0)
"""Of pixels that belong to none of the classes."""

_GOLDEN = 0.618033988749895  # steps of this on the hue circle never come close to an earlier one soon
_TONES = ((0.85, 0.95), (0.55, 1.0), (0.9, 0.65), (0.45, 0.8))  # saturation, value


def colour(index: int) -> tuple[int, int, int]:
    """RGB, 0 to 255, of class `index`."""
    saturation, value = _TONES[index % len(_TONES)]
    red, green, blue = colorsys.hsv_to_rgb(index * _GOLDEN % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def colours(count: int) -> npt.NDArray[np.uint8]:
    """(count, 3) uint8 RGB."""
    return np.array([colour(index) for index in range(count)], np.uint8).reshape(count, 3)
