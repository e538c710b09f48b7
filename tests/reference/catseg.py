"""CAT-Seg's stand-in weights, by the rules of the oracle's own generator, and its golden runs."""

import importlib.util
import json
from pathlib import Path

import numpy as np

SEEDS = {"b": 11, "l": 12}


def write_checkpoint(shared: Path, folder: Path, size: str = "b") -> Path:
    """A released file's stand-in, `{"model": ...}`; the masks of the shifted windows are the computed ones."""
    import torch

    from edgeseg.export.nets.swin import shift_mask

    oracle = shared / "oracle/catseg"
    spec = importlib.util.spec_from_file_location("synth_catseg", oracle / "synth_catseg.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    keys = json.loads((oracle / f"vit{size}_keys.json").read_text())
    mask = shift_mask(24, 12, 6)
    state = {
        name: mask if name.endswith("attn_mask") else torch.from_numpy(module.synth(name, shape, SEEDS[size]))
        for name, (shape, _) in keys.items()
    }
    path = folder / f"catseg-{size}.pth"
    torch.save({"model": state}, path)
    return path


def golden(shared: Path, run: str) -> tuple[dict[str, np.ndarray], dict]:
    """Arrays and description of one run of the authors' code."""
    folder = shared / "oracle/catseg"
    return dict(np.load(folder / f"{run}.npz")), json.loads((folder / f"{run}.json").read_text())
