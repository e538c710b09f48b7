"""A small DINOv2 of timm's, with stand-in weights, and the bundle of it beside the small CLIP, untrained."""

from dataclasses import replace

import torch

from edgeseg.export import use
from edgeseg.export.bundle import Checkpoint, Loaded, export_loaded
from edgeseg.export.recipe import preset
from tests.export.small import synth
from tests.export.small_sam import RECIPE, SQUARE, authors, load
from tests.export.small_use import SIDE, clip

GRID = 5  # of DINOv2's trained positions; the input has 7


def dino(grid=GRID, patch=16):
    """Timm's DINOv2 of four blocks with stand-in weights; its names are those of the published file."""
    import timm

    sizes = {"img_size": grid * patch, "patch_size": patch, "depth": 4, "embed_dim": 64, "num_heads": 1}
    model = timm.create_model("vit_small_patch14_dinov2", pretrained=False, num_classes=0, **sizes)
    model.load_state_dict(
        {name: torch.from_numpy(synth(name, value.shape, 1)) for name, value in model.state_dict().items()}
    )
    return model.eval().requires_grad_(False)


def recipe(**options):
    made = replace(preset("use-l"), **SQUARE)
    return replace(made, options={**made.options, "clip_scale": SIDE / 256, "merged": 32, "levels": 2, **options})


def state(**others):
    """Of CLIP, and of DINOv2 under its own names."""
    made = dict(clip().state_dict())
    return made | {f"dino.{name}": value for name, value in dino(**others).state_dict().items()}


def write_small_tapped(folder):
    """The bundle."""
    torch.save(clip().state_dict(), folder / "clip.pth")
    torch.save(dino().state_dict(), folder / "dino.pth")
    model = use.UseModel(use.load_clip(folder / "clip.pth", state(), recipe()), load(folder, authors()), RECIPE)
    files = Checkpoint(folder / "clip.pth", sam=folder / "small.pth", dino=folder / "dino.pth")
    return export_loaded(Loaded(files, recipe(), model), [], folder / "use.bundle")
