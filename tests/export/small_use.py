"""A small CLIP in open_clip's own classes, with stand-in weights, and the bundle of it behind the small SAM."""

from dataclasses import replace

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

from edgeseg.export import use
from edgeseg.export.bundle import Checkpoint, Loaded, export_loaded
from edgeseg.export.recipe import preset
from tests.export.small import synth
from tests.export.small_sam import RECIPE, SQUARE, authors, load

SIDE = 112  # of CLIP's input: 7 x 7 patches


def clip(seed=0):
    """Open_clip's model: eight blocks of width 64, patch 16."""
    vision = CLIPVisionCfg(layers=8, width=64, head_width=64, patch_size=16, image_size=SIDE)
    text = CLIPTextCfg(width=64, heads=1, layers=2)
    model = CLIP(48, vision, text, quick_gelu=True)
    state = {name: torch.from_numpy(synth(name, value.shape, seed)) for name, value in model.state_dict().items()}
    model.load_state_dict({**state, "logit_scale": torch.tensor(3.0)})
    return model.eval().requires_grad_(False)


def recipe():
    return replace(preset("use-clip"), **SQUARE)


def write_small_use(folder, sam_seed=0):
    """The bundle."""
    path = folder / "clip.pth"
    torch.save(clip().state_dict(), path)
    parts = use.load_clip(path, dict(clip().state_dict()), recipe())
    model = use.UseModel(parts, load(folder, authors(sam_seed)), RECIPE)
    return export_loaded(Loaded(Checkpoint(path, sam=folder / "small.pth"), recipe(), model), [], folder / "use.bundle")


def write_small_sam(folder):
    """The bundle of the small SAM by itself."""
    model = load(folder, authors())
    return export_loaded(Loaded(Checkpoint(folder / "small.pth"), RECIPE, model), [], folder / "sam.bundle")
