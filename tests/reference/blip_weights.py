"""The oracle's stand-in weights of BLIP-large at 336 pixels, made by the oracle's own generator."""

import importlib.util
import json
from pathlib import Path

import torch

SEED = 21


def blip_weights(oracle: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the oracle's list, float32; 1.8 GB."""
    spec = importlib.util.spec_from_file_location("synth_blip_itm", oracle / "synth_blip_itm.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    keys = json.loads((oracle / "blip_itm_large_336_keys.json").read_text())
    return {
        name: torch.from_numpy(module.synth(name, shape, SEED))
        for name, (shape, kind) in keys.items()
        if kind == "float32"
    }
