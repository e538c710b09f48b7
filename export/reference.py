"""Reference tensors: a few inputs, and what torch makes of them, for a device that has no torch.

Every tensor of the chain is kept as a sample, each ceil(n/16384)-th number in row-major order: enough to see a wrong
engine, small enough to travel. The label map is whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from edgeseg.closeness import sample
from edgeseg.preprocess import resize_rgb
from edgeseg.reference import UNDECIDED
from edgeseg.schema import Size

IMAGES = 2  # per canvas, at least
CLASSES = 20

UInt8 = npt.NDArray[np.uint8]


class Flushed:
    """Denormal numbers count as zero: a softmax over masks leaves them, and they slow a CPU down a hundredfold."""

    def __enter__(self) -> None:
        torch.set_flush_denormal(True)

    def __exit__(self, *_: object) -> None:
        torch.set_flush_denormal(False)


def reference_image(canvas: Size, number: int) -> UInt8:
    """A made-up scene, (H, W, 3) uint8: sky and ground, discs and boxes, grain. The same on every machine."""
    random = np.random.Generator(np.random.PCG64([*canvas, number]))
    height, width = canvas
    y, x = np.mgrid[:height, :width].astype(np.float32)
    top, bottom = random.integers(0, 256, (2, 3)).astype(np.float32)
    share = (y / height)[..., None]
    scene = top * (1 - share) + bottom * share
    for _ in range(24):
        centre, radius = random.random(2) * canvas, random.random() * height / 4 + 8
        inside = np.hypot(y - centre[0], x - centre[1]) < radius
        if random.random() < 0.5:
            inside = np.maximum(abs(y - centre[0]), abs(x - centre[1])) < radius
        scene[inside] = random.integers(0, 256, 3)
    scene += random.normal(0, 8, scene.shape).astype(np.float32)
    made: UInt8 = scene.clip(0, 255).astype(np.uint8)
    return made


def photo_on(canvas: Size, rgb: UInt8) -> UInt8:
    """A photo (H, W, 3) uint8 RGB at the size of a canvas: the largest part of its middle of the canvas's shape."""
    height, width = rgb.shape[:2]
    rows = max(1, min(height, round(width * canvas[0] / canvas[1])))
    columns = max(1, min(width, round(height * canvas[1] / canvas[0])))
    top, left = (height - rows) // 2, (width - columns) // 2
    return resize_rgb(rgb[top : top + rows, left : left + columns], canvas)


def embedded_case(image: UInt8, text: Tensor, number: int) -> dict[str, Any]:
    """A case of a family whose classes are embeddings, every other one a training class."""
    overlap = (np.arange(len(text)) % 2 == number % 2).astype(np.float32)
    return {"image": image, "text": text.numpy(), "overlap": overlap}


def labels(masks: Tensor, class_probs: Tensor, canvas: Size) -> npt.NDArray[np.uint16]:
    """Mask logits (1, Q, h, w) and class probabilities (1, Q, C) → label map (H, W), as the authors compose it.

    A pixel whose two best scores differ by less than 1e-4 of the best is `UNDECIDED`: rounding alone would decide it.
    """
    shown = F.interpolate(masks, size=canvas, mode="bilinear", align_corners=False)[0].sigmoid()
    return decided(torch.einsum("qc,qhw->chw", class_probs[0], shown))


def decided(scores: Tensor) -> npt.NDArray[np.uint16]:
    """Scores (C, H, W) → label map, `UNDECIDED` where the two best are as close as `labels` says."""
    best = scores.topk(2, dim=0) if len(scores) > 1 else None
    chosen = scores.argmax(0).numpy().astype(np.uint16)
    if best is not None:
        chosen[(best.values[0] - best.values[1] <= 1e-4 * best.values[0]).numpy()] = UNDECIDED
    return chosen


def write_case(
    path: Path, inputs: Mapping[str, npt.NDArray[Any]], tensors: Mapping[str, Tensor], composed: Any = None
) -> None:
    """One .npz: `inputs` whole, `tensors` as samples under "tensor:<name>", and the label map if there is one."""
    arrays: dict[str, Any] = dict(inputs)
    arrays.update({f"tensor:{name}": sample(np.asarray(tensor)) for name, tensor in tensors.items()})
    if composed is not None:
        arrays["labels"] = composed
    np.savez_compressed(path, **arrays)
