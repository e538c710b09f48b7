"""A small LMSeg, or CAT-Seg, that goes through the whole export in seconds."""

import json

import numpy as np
import torch

from edgeseg.export.bundle import Checkpoint
from edgeseg.export.nets.aggregation import AggregationConfig
from edgeseg.export.nets.clip import ClipConfig
from edgeseg.export.nets.lmseg import FusionConfig, LMSeg, LMSegConfig
from edgeseg.export.nets.sam import SamConfig
from edgeseg.export.nets.swin import SwinConfig, shift_mask
from edgeseg.export.recipe import parse
from tests.export.small import synth

SIDE, GRID, WINDOW = 64, 4, 2
EMBEDDING = 48
SAM = {"side": 96, "weight": "scalar", "unit": False, "appearance": "fused"}

RECIPE = """
family = "lmseg"
name = "small"
licence = "test"
canvases = ["384x384"]
clip_width = 128
clip_patch = 16
resize = {{ mode = "stretch" }}
text_encoder = "clip"
templates = "catseg"
training_classes = "coco-stuff-171"

[gate]
fp32 = {{ cosine = 0.999, agreement = 0.99 }}
# Among stand-in weights classes are nearly alike, so int8 changes many labels though every tensor is close.
int8 = {{ cosine = 0.99, agreement = 0.5 }}

[options]
side = {side}
taps = [1, 2]
clip_head = 64
pooling = {pooling}
names = "first"
prompts = {prompts}
sam = {sam}
"""


def small_recipe(sam=None, pooling=1, prompts=1):
    """The recipe of a small model; `sam` is a dict of options, or None for CAT-Seg."""
    table = ", ".join(f"{key} = {json.dumps(value)}" for key, value in (sam or {}).items())
    return parse(RECIPE.format(side=SIDE, pooling=pooling, prompts=prompts, sam="{" + table + "}"), "small")


def small_config(sam=None, pooling=1, prompts=1, adapter=True, text=None):
    clip = ClipConfig(128, 2, 16, 3, 4, 0, 0, 96, EMBEDDING)
    aggregation = AggregationConfig(
        embedding=EMBEDDING,
        swin=SwinConfig(64, 32, 48, GRID, WINDOW, 2),
        class_hidden=56,
        prompts=prompts,
        text_guidance=40,
        early=24,
        late=16,
        decoder=(32, 16),
        decoder_guidance=(16, 8),
        pooling=pooling,
    )
    fused = None
    if sam is not None:
        fused = FusionConfig(EMBEDDING, 64 if adapter else EMBEDDING, sam["weight"], adapter, sam["unit"])
    encoder = SamConfig(64 if adapter else EMBEDDING, 3, 2, 16, 8, 4, (1, 2), 96) if fused else None
    appearance = (sam or {}).get("appearance", "fused")
    return LMSegConfig(clip, (1, 2), text, aggregation, encoder, fused, appearance)


def small_state(config, seed=3):
    """A state dict with stand-in weights; the mask of the shifted windows is the real one."""
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in LMSeg(config).state_dict().items()}
    state = {name: torch.from_numpy(synth_lmseg(name, shape, seed)) for name, shape in shapes.items()}
    mask = shift_mask(GRID, WINDOW, WINDOW // 2)
    return {name: mask if name.endswith("attn_mask") else value for name, value in state.items()}


def synth_lmseg(name, shape, seed):
    factor = 20 if "transformer.conv1" in name or "text_guidance_projection.0.weight" in name else 1
    factor = 5 if "padding_" in name else factor
    return np.asarray(synth(name, shape, seed) * factor, np.float32)


def write_small(folder, **sizes):
    """A checkpoint file of a small model, and its recipe."""
    recipe = small_recipe(**{key: value for key, value in sizes.items() if key in ("sam", "pooling", "prompts")})
    path = folder / "small.pth"
    torch.save(small_state(small_config(**sizes)), path)
    return Checkpoint(path), recipe
