"""Where an image goes on a bundle's canvases: its resized size, the canvas that holds it, and whether that is exact.

The cases, in this order:

1. An image that has a canvas's size goes in as it is.
2. Under the rule "stretch" it goes in as it is, on the largest canvas: the pipeline stretches it.
3. It is resized by the recipe's rule; the smallest canvas that holds the result takes it, padded right and bottom.
4. If none holds it, it is shrunk further, keeping its aspect, into the largest; under the rule "none" it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeseg.errors import BundleError, InputError
from edgeseg.schema import Size, size_text

UNRESIZED, STRETCH = "none", "stretch"

_LARGEST = 1 << 16  # pixels of a side
_SHOWN = 200  # characters of what a hostile recipe holds


@dataclass(frozen=True)
class Placement:
    """An image's place.

    Attributes:
        original: the image's (H, W).
        valid: the (H, W) it is resized to; it lies at the canvas's top left.
        canvas: the (H, W) the graphs are made for.
        exact: the canvas is the one that the authors' code would have made for this image.
        reason: what differs from the authors' code; None if `exact`.
    """

    original: Size
    valid: Size
    canvas: Size
    exact: bool
    reason: str | None


def resized(original: Size, short: int, long: int) -> Size:
    """The size that makes the short side `short`, unless the long side would exceed `long`; then that is `long`.

    Rounds as detectron2's ResizeShortestEdge does, half up, on the same floating-point numbers.
    """
    height, width = original
    scale = short / min(height, width)
    new_height, new_width = (short, scale * width) if height < width else (scale * height, short)
    if max(new_height, new_width) > long:
        shrink = long / max(new_height, new_width)
        new_height, new_width = new_height * shrink, new_width * shrink
    return max(int(new_height + 0.5), 1), max(int(new_width + 0.5), 1)


def long_side(original: Size, long: int) -> Size:
    """The size that makes the long side `long`, rounded half up, as segment-anything does it."""
    scale = long / max(original)
    height, width = (max(int(side * scale + 0.5), 1) for side in original)
    return height, width


def place(
    original: Size, canvases: Sequence[Size], recipe: Mapping[str, Any], *, resize: str | None = None
) -> Placement:
    """The place of an image of size `original`.

    Args:
        original: (H, W) of the image.
        canvases: those that there are engines for.
        recipe: the bundle's.
        resize: "none" leaves the image as large as it is, whatever the recipe's rule.

    Raises:
        InputError: the image is not to be resized, and is larger than every canvas; or `resize` is unknown.
        BundleError: the recipe's resize rule or divisor is none that this version knows.
    """
    rule = recipe.get("resize")
    rule = rule if isinstance(rule, dict) else {}
    mode, divisor = rule.get("mode"), _whole(recipe, "divisor", 1)
    if resize not in (None, UNRESIZED):
        raise InputError("place the image", f"the resize rule {resize!r} is unknown", f"take {UNRESIZED!r} or leave it")
    if mode == STRETCH:
        if resize is not None:
            found = "this family stretches every image over its canvas"
            raise InputError("leave the image as large as it is", found, "leave the resize rule out")
        return Placement(original, original, max(canvases, key=_area), True, None)
    if UNRESIZED in (mode, resize):
        return _unresized(original, canvases, divisor, asked=mode != UNRESIZED)
    if mode == "long-side":
        return _on_canvas(original, long_side(original, int(rule["long"])), canvases, divisor)
    if mode != "short-side":
        raise _refused(f"its resize rule is {rule!r}")
    wanted = resized(original, _whole(rule, "short"), _whole(rule, "long"))
    return _on_canvas(original, wanted, canvases, divisor)


def _whole(recipe: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """A number of the recipe, which may be anything until now."""
    value = recipe.get(key, default)
    if type(value) is not int or not 0 < value <= _LARGEST:
        raise _refused(f"its {key} is {value!r}")
    return value


def _refused(found: str) -> BundleError:
    todo = "make the bundle again with this version of edgeseg"
    return BundleError("read the bundle's recipe", found[:_SHOWN], todo)


def _unresized(original: Size, canvases: Sequence[Size], divisor: int, asked: bool) -> Placement:
    fitting = [canvas for canvas in canvases if canvas[0] >= original[0] and canvas[1] >= original[1]]
    if not fitting:
        sizes = ", ".join(map(size_text, canvases))
        found = f"it is {size_text(original)}, is not to be resized, and the canvases are {sizes}"
        raise InputError("place the image", found, "resize it, or export the bundle with a larger --size")
    canvas, authors = min(fitting, key=_area), _padded(original, divisor)
    reason = f"it went in as it is on the canvas {size_text(canvas)}"
    if asked:
        return Placement(original, original, canvas, False, f"{reason}, as was asked")
    if canvas in (original, authors):
        return Placement(original, original, canvas, True, None)
    return Placement(original, original, canvas, False, f"{reason}; the authors' code pads it to {size_text(authors)}")


def _padded(size: Size, divisor: int) -> Size:
    return -(-size[0] // divisor) * divisor, -(-size[1] // divisor) * divisor


def _on_canvas(original: Size, wanted: Size, canvases: Sequence[Size], divisor: int) -> Placement:
    authors = _padded(wanted, divisor)
    if original in canvases:
        valid, canvas = original, original
    else:
        fitting = [canvas for canvas in canvases if canvas[0] >= wanted[0] and canvas[1] >= wanted[1]]
        valid = wanted
        canvas = min(fitting, key=_area) if fitting else max(canvases, key=lambda c: (_area(c), _fit(wanted, c)))
        if not fitting:
            valid = _shrunk(original, canvas)
    if valid == wanted and canvas == authors:
        return Placement(original, valid, canvas, True, None)
    return Placement(original, valid, canvas, False, _reason(valid, canvas, wanted, authors))


def _area(size: Size) -> int:
    return size[0] * size[1]


def _fit(size: Size, canvas: Size) -> float:
    return min(canvas[0] / size[0], canvas[1] / size[1])


def _shrunk(original: Size, canvas: Size) -> Size:
    scale = _fit(original, canvas)
    height, width = (min(max(int(side * scale + 0.5), 1), limit) for side, limit in zip(original, canvas, strict=True))
    return height, width


def _reason(valid: Size, canvas: Size, wanted: Size, authors: Size) -> str:
    theirs = f"the authors' code resizes it to {size_text(wanted)} on {size_text(authors)}"
    return f"it went in as {size_text(valid)} on the canvas {size_text(canvas)}; {theirs}"
