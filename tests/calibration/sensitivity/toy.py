"""A toy bundle with blocks, one of which int8 spoils, and studies of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.bundle import Bundle
from edgeseg.calibration.calibrate import calibrate
from edgeseg.calibration.photos import photos_at
from edgeseg.calibration.sensitivity.trials import Setup
from tests.calibration.photo_bundle import write_photos
from tests.nets import Net
from tests.tiny_bundle import WIDTH, Shapes, Toy, make_bundle, toys

CANVAS = (32, 32)
SPOILT = "sam/blocks.1"
KEYS = ["sam/blocks.0", "sam/blocks.1", "sam/blocks.2", "clip_trunk/rest", "clip_tail/rest"]


class Scoped(Net):
    """A net whose nodes are named by the scope it is in."""

    scope = ""

    def op(self, kind: str, *inputs: str, scope: str = "", **attributes: Any) -> str:
        return super().op(kind, *inputs, scope=scope or self.scope, **attributes)


def sam(canvas, spoilt: int | None = 1, faint: int | None = None, blocks: int = 3) -> Toy:
    """Blocks of two products each. In the spoilt one the hidden layer has a channel a thousand times too large, of
    which the second product takes hardly anything: at the scale of that channel the others are rounded away. The
    weights of the faint one are beyond what fp16 tells from zero.
    """
    net, (h, w) = Scoped(1), (canvas[0] // 8, canvas[1] // 8)
    net.scope = "/patch_embed"
    patches = net.op("Conv", "image_sam", net.weight(WIDTH, 3, 8, 8), strides=[8, 8])
    x = net.op("Transpose", net.reshape(patches, 1, WIDTH, h * w), perm=(0, 2, 1))
    for block in range(blocks):
        net.scope = f"/blocks.{block}"
        first, second = (net.rng.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH) for _ in range(2))
        if block == spoilt:
            first[:, 0] *= 1e3
            second[0] *= 1e-6
            second *= 3.0
        gain = 1500.0 if block == faint else 1.0
        if block == faint:
            first, second = 1e3 * first, 2e-6 * second
        hidden = net.op("MatMul", net.norm(x, WIDTH, gain), net.const(first))
        hidden = net.op("Mul", hidden, net.op("Sigmoid", hidden))
        x = net.op("Add", x, net.op("MatMul", hidden, net.const(second)))
    net.scope = ""
    sides: tuple[Shapes, Shapes] = ({"image_sam": [1, 3, *canvas]}, {"sam_2": [1, h * w, WIDTH]})
    return net.model(*sides, {"sam_2": x}), *sides


def make(path: Path, **options: Any) -> Bundle:
    def graphs(canvas):
        return toys(canvas) if canvas is None else toys(canvas) | {"sam": sam(canvas, **options)}

    bundle = make_bundle(path, graphs, (CANVAS,))
    with bundle.edit() as edit:
        edit.update(recipe={**bundle.manifest.recipe, "resize": {"mode": "none"}})
    return Bundle.open(path)


def quiet(_done: int, _total: int) -> None:
    pass


def setup_of(bundle: Bundle, photos: Path, kind: str = "int8", **more: Any) -> Setup:
    """The setup of a study on ten photos, written to the folder if it is not there."""
    if not photos.exists():
        write_photos(photos, 10)
    found = photos_at(photos, bundle, 99, 0, quiet)
    stored = bundle.reference("32x32")[0]
    return Setup(bundle, kind, calibrate(bundle, found, quiet), found, stored["text"], stored["overlap"], **more)
