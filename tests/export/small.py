"""A small EBSeg that goes through the whole export in seconds, in both of the published shapes.

"b": patch 16, CLIP at half size. "l": patch 14, CLIP at 0.7, where the pooling onto CLIP's grid is seldom uniform.
"""

import zlib
from pathlib import Path

import numpy as np
import torch

from edgeseg.export.bundle import Checkpoint
from edgeseg.export.nets.clip import ClipConfig
from edgeseg.export.nets.ebseg import EBSeg, EBSegConfig, TextConfig
from edgeseg.export.nets.pixel_decoder import DecoderConfig
from edgeseg.export.nets.sam import SamConfig

EMBEDDING = 128
SEED = 7  # with it several classes win; with some others every query is background and the labels are chance
TABLES = ("class_embedding", "positional_embedding", "pos_embed", "rel_pos_h", "rel_pos_w", "level_embed")


def small_config(like="b", width=128, queries=10, text=True, embedding=EMBEDDING):
    """Every size that a checkpoint may choose; `width`, a multiple of 32, is the decoder's.

    Narrower ones are so badly conditioned with random weights that rounding shows in the fourth digit.
    """
    clip = ClipConfig(64, 2, 16 if like == "b" else 14, 7 if like == "b" else 9, 3, 2, 1, 128, embedding)
    return EBSegConfig(
        sam=SamConfig(64, 6, 2, 16, 64, 14, (1, 2, 4, 5), 128),
        clip=clip,
        decoder=DecoderConfig(64, 64, width, 8, 4, 2, 128, 3, 96, queries, embedding, 2),
        text=TextConfig(64, 1, 2, 77, 49408) if text else None,
    )


def synth(key, shape, seed):
    """One tensor of stand-in weights, by the same rules as the oracle's generator: a stream per key."""
    leaf = key.rsplit(".", 1)[-1]
    random = np.random.Generator(np.random.PCG64([seed, zlib.crc32(key.encode())]))
    z = random.standard_normal(tuple(shape), dtype=np.float32)
    if leaf == "logit_scale":
        return np.full(shape, 4.6052 if key.startswith("ov_") else 1.0, np.float32)
    if len(shape) <= 1:
        return np.asarray(1 + 0.1 * z if leaf == "weight" else 0.02 * z, np.float32)
    if leaf in (*TABLES, "bg_embed") or "embed.weight" in key or "query_feat" in key:
        factor = 0.2
    else:
        factor = 1 / np.sqrt(shape[0] if leaf in ("proj", "text_projection") else np.prod(shape[1:]))
    factor *= 20 if "token_embedding" in key else 5 if "predictor.query" in key else 1
    factor *= 3 if "predictor." in key and "in_proj_weight" in key else 1
    factor *= 1.7 if "mask_embed" in key and leaf == "weight" else 1
    return np.asarray(z * factor, np.float32)


def shapes(config):
    """Name → shape of every tensor of such a checkpoint."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in EBSeg(config).state_dict().items()}


def small_state(config, seed=SEED):
    """A state dict with stand-in weights."""
    return {name: torch.from_numpy(synth(name, shape, seed)) for name, shape in shapes(config).items()}


def fill(module, seed=0, dtype=torch.float64):
    """Any module with stand-in weights, in float64 so that rewrites can be told from rounding."""
    state = {name: torch.from_numpy(synth(name, t.shape, seed)) for name, t in module.state_dict().items()}
    module.load_state_dict(state)
    return module.to(dtype).eval().requires_grad_(False)


def write_small(folder: Path, like="b", seed=SEED, **sizes):
    """A checkpoint file of a small EBSeg as `export_bundle` takes it."""
    path = folder / f"small-{like}.pth"
    torch.save({"model": small_state(small_config(like, **sizes), seed)}, path)
    return Checkpoint(path, f"ebseg-{like}")
