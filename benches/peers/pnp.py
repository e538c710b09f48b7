"""PnP-OVSS from a photo to its label map: torch's autograd as the authors use it, and this project's graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from . import inputs
from .made import BLIP_BUNDLE, BLIP_CHECKPOINT, refusals_as_absence
from .side import Run

NAMES = ("word7", "word77", "word777", "word7777", "word17777")
FRAME = (30523, 4, 5, 6), (3,)  # [ENC] a picture of ... [SEP] in the made-up vocabulary
FIRST_WORD = 7


def original(work: Path) -> Run:
    """Four forward and backward passes, each over the whole of both encoders."""
    import torch
    from PIL import Image

    from edgeseg.export.nets.layers import resize_grid
    from edgeseg.export.pnp_ovss import MEAN, STD
    from edgeseg.pipelines.pnp_maps import ClassMaps
    from edgeseg.pipelines.pnp_settings import Settings
    from edgeseg.placement import Placement
    from tests.reference.blip_original import Sizes, salience_dropout

    torch.set_flush_denormal(True)
    torch.set_num_threads(inputs.threads())
    state = torch.load(work / BLIP_CHECKPOINT, weights_only=True, mmap=True)["model"]
    table = state["visual_encoder.pos_embed"]
    state["visual_encoder.pos_embed"] = torch.cat((table[:, :1], resize_grid(table[:, 1:], (24, 24), (21, 21))), 1)
    state = {name: value.clone().requires_grad_(True) for name, value in state.items()}
    words = [FIRST_WORD + int(name.removeprefix("word")) for name in NAMES]
    ids = torch.tensor([[*FRAME[0], *words, *FRAME[1]]])
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))
    photo = inputs.photo()
    place = Placement(photo.shape[:2], photo.shape[:2], (336, 336), True, None)

    def run() -> Any:
        small = np.array(Image.fromarray(photo).resize((336, 336), Image.Resampling.BICUBIC))
        pixels = (torch.from_numpy(small).permute(2, 0, 1).float() - mean) / std
        rounds = salience_dropout(state, Sizes(), pixels[None], ids)
        maps = rounds.aggregate[len(FRAME[0]) : -1].reshape(len(NAMES), 21, 21).numpy()
        return ClassMaps(maps, np.arange(len(NAMES)), NAMES, place, Settings()).compose().labels

    return run


def ours(work: Path) -> Run:
    """`edgeseg.open` and a call."""
    import edgeseg

    with refusals_as_absence():
        segmenter = edgeseg.open(work / BLIP_BUNDLE, backend="onnxruntime", precision="fp32", threads=inputs.threads())
    photo, words = inputs.photo(), segmenter.vocabulary(list(NAMES))
    return lambda: segmenter(photo, classes=words, settings={"filter": "none"}).labels
