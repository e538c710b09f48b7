"""A small CLIP in open_clip's own classes, with stand-in weights, and the bundle of it behind the small SAM."""

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

from edgeseg.export import sam, sam_bundle, use, use_bundle
from edgeseg.export.recipe import presets
from edgeseg.export.sam_recipe import UseRecipe
from edgeseg.export.segment_bundle import SegmentExport, write_bundle
from edgeseg.export.text_encoders import find
from edgeseg.schema import Source
from edgeseg.segments.pooling import fixed_weights
from tests.export.small import synth
from tests.export.small_sam import CANVAS, GATE, RECIPE, authors, load

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
    return next(one for one in presets(UseRecipe) if one.name == "use-clip")


def write_small_use(folder):
    """The bundle."""
    chosen, canvas = recipe(), (CANVAS, CANVAS)
    model = use.load(folder / "clip.pth", dict(clip().state_dict()), chosen)
    prompts = RECIPE.prompts["batch"]
    made = SegmentExport(
        family="use",
        name="use-clip",
        source=Source("clip.pth", "cd" * 32),
        recipe=sam_bundle.resolved(RECIPE) | use_bundle._resolved(chosen, model) | {"gate": GATE},
        canvas=canvas,
        images=sam.transforms() | use.transforms(chosen),
        plans=[*sam.graphs(load(folder, authors())), *use.graphs(model, canvas)],
        masks=use.prompt_masks,
        inputs={"segment_weights": torch.from_numpy(fixed_weights(prompts, (SIDE // 16) ** 2))},
        text=find("clip", model.text),
    )
    return write_bundle(made, folder / "use.bundle", False, lambda *_: None)
