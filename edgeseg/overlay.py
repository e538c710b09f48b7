"""Draws a label map over its image, with a legend of the classes that are in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from edgeseg.compose import NONE_LABEL
from edgeseg.palette import colour, colours

if TYPE_CHECKING:
    from edgeseg.segmentation import Segmentation

LEGEND_CLASSES = 24
"""The largest classes that the legend names; it says how many more there are."""

_OPACITY = 0.55
_NAME_LENGTH = 40
_ROWS = 256  # blended at a time, so that the float copies stay small


def draw_overlay(result: Segmentation) -> Image.Image:
    """RGB image as wide as the photo (at least 160 pixels), the legend below it."""
    blended = blend(result.image, result.labels, len(result.names))
    height, width = blended.shape[:2]
    legend = _legend(result, max(width, 160), max(12, min(28, width // 40)))
    sheet = Image.new("RGB", (legend.width, height + legend.height), "white")
    sheet.paste(Image.fromarray(blended), (0, 0))
    sheet.paste(legend, (0, height))
    return sheet


def blend(rgb: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint16], classes: int) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8: the image under the classes' colours; pixels of none of the classes stay as they are."""
    palette = colours(classes)
    result = rgb.copy()
    for top in range(0, len(rgb), _ROWS):
        part, rows = labels[top : top + _ROWS], result[top : top + _ROWS]
        known = part != NONE_LABEL
        mixed = rows[known] * (1 - _OPACITY) + palette[part[known]] * _OPACITY
        rows[known] = mixed.astype(np.uint8)
    return result


def _legend(result: Segmentation, width: int, size: int) -> Image.Image:
    entries = _entries(result)
    font = ImageFont.load_default(size)
    column = min(width, max(int(font.getlength(text)) for text, _ in entries) + 3 * size)
    columns = max(width // column, 1)
    lines = -(-len(entries) // columns)
    legend = Image.new("RGB", (width, lines * size * 3 // 2 + size), "white")
    draw = ImageDraw.Draw(legend)
    for index, (text, rgb) in enumerate(entries):
        left, top = index % columns * column + size // 2, index // columns * size * 3 // 2 + size // 2
        if rgb is not None:
            draw.rectangle((left, top, left + size, top + size), fill=rgb)
        draw.text((left + size * 3 // 2, top - size // 10), text, fill="black", font=font)
    return legend


def _entries(result: Segmentation) -> list[tuple[str, tuple[int, int, int] | None]]:
    """Text and colour of each line, the largest class first."""
    present = [(pixels, index) for index, pixels in enumerate(result.areas.values()) if pixels]
    present.sort(key=lambda item: (-item[0], item[1]))
    total = result.labels.size
    entries: list[tuple[str, tuple[int, int, int] | None]] = [
        (f"{_short(result.names[index])} {pixels / total:.1%}", colour(index))
        for pixels, index in present[:LEGEND_CLASSES]
    ]
    if len(present) > LEGEND_CLASSES:
        entries.append((f"and {len(present) - LEGEND_CLASSES} more classes", None))
    if result.none_pixels:
        entries.append((f"none of these {result.none_pixels / total:.1%}", None))
    return entries


def _short(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "…"
