"""EBSeg-B from an image to its label map: the authors' formulation in torch, and this project's chain.

The original runs CLIP's tail for all ten predictions and makes the full-size attention bias, as published
(`tests/reference/ebseg_original.py`).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from . import inputs
from .made import BUNDLE, CHECKPOINT, refusals_as_absence
from .side import AbsentError, Run


def original(work: Path, *, compiled: bool) -> Run:
    """The authors' formulation, eager or under torch.compile; what its first call compiles is forgotten afterwards."""
    caches = _fresh_caches() if compiled else None
    import torch

    from tests.reference.ebseg_original import forward
    from tests.reference.sizes import BASE

    torch.set_flush_denormal(True)  # as onnxruntime is told here; without it the original is slower by far
    torch.set_num_threads(inputs.threads())
    state = torch.load(work / CHECKPOINT, weights_only=True, mmap=True)["model"]
    background = torch.nn.functional.normalize(state["ov_classifier.bg_embed"], dim=-1)
    text = torch.cat((torch.from_numpy(inputs.embeddings()), background)), torch.from_numpy(inputs.overlap())
    planes = torch.from_numpy(inputs.image()).permute(2, 0, 1)

    def label(planes: torch.Tensor) -> torch.Tensor:
        return forward(state, BASE, planes, text).scores.argmax(0)

    chosen = torch.compile(label) if compiled else label

    def run(held: Any = caches) -> Any:
        return chosen(planes).numpy().astype(np.uint16)

    return run


def ours(work: Path, *, precision: str) -> Run:
    """`edgeseg.open` and a call."""
    import edgeseg
    from edgeseg.vocabulary import Vocabulary

    names = tuple(f"class {i}" for i in range(inputs.CLASSES))
    vocabulary = Vocabulary(names, inputs.embeddings(), inputs.overlap())
    with refusals_as_absence():
        segmenter = edgeseg.open(work / BUNDLE, backend="onnxruntime", precision=precision, threads=inputs.threads())
    image = inputs.image()
    return lambda: segmenter(image, classes=vocabulary).labels


def _fresh_caches() -> tempfile.TemporaryDirectory[str]:
    """An empty folder for all that torch.compile keeps, so that the first run holds all of the compilation."""
    if not shutil.which(os.environ.get("CXX", "g++")):
        raise AbsentError("torch.compile makes C++ of a network on a CPU, and there is no g++ here (nor $CXX)")
    folder = tempfile.TemporaryDirectory(prefix="inductor-")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder.name
    return folder
