"""A toy bundle whose recipe takes photos as they are and whose canvases share their weights, and photos for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from PIL import Image

from edgeseg.bundle import Bundle
from tests.tiny_bundle import CANVASES, add_graph, add_reference, make_bundle, toys


def make(path: Path) -> Bundle:
    bundle = make_bundle(path)
    with bundle.edit() as edit:
        edit.update(recipe={**bundle.manifest.recipe, "resize": {"mode": "none"}})
        first = toys(CANVASES[0])
        for name, (model, inputs, outputs) in toys(CANVASES[1]).items():
            share_weights(first[name][0], model)
            add_graph(edit, name, CANVASES[1], (model, inputs, outputs))
    bundle = Bundle.open(path)
    with bundle.edit() as edit:
        add_reference(bundle, edit, CANVASES[1])
    return Bundle.open(path)


def share_weights(source: onnx.ModelProto, target: onnx.ModelProto) -> None:
    """Give `target` every weight of `source` that fits it: all but the tables of positions."""
    known = {tensor.name: tensor for tensor in source.graph.initializer}
    for tensor in target.graph.initializer:
        if (
            tensor.name in known
            and tensor.dims == known[tensor.name].dims
            and tensor.data_type == onnx.TensorProto.FLOAT
        ):
            tensor.CopyFrom(known[tensor.name])


def write_photos(folder: Path, count: int = 6, size: tuple[int, int] = (32, 32)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 255, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"photo-{size[1]}-{index:02}.png")
    return folder
