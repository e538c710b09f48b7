"""A small BLIP with the names of the published retrieval file, its sizes not alike so that no two can be confused."""

import zlib

import numpy as np
import torch

from edgeseg.export.nets.blip_itm import BlipItm, ItmConfig
from edgeseg.export.nets.blip_vit import BlipViT, VitConfig

VIT = VitConfig(width=96, depth=3, heads=3, patch=16, grid=5, hidden=160)
WORDS = 64


def itm_config(seed="logit"):
    """Four blocks, the map from the second."""
    sizes = {"width": 48, "heads": 4, "depth": 4, "hidden": 80, "words": WORDS, "positions": 40, "image_width": 96}
    return ItmConfig(**sizes, layer=1, head=2, seed=seed)


def synth(key, shape, seed=3):
    """Stand-in weights, a stream per key; sharp attentions, so that gradients differ from cell to cell."""
    z = np.random.Generator(np.random.PCG64([seed, zlib.crc32(key.encode())])).standard_normal(tuple(shape))
    leaf = key.rsplit(".", 1)[-1]
    if len(shape) <= 1:
        return 1 + 0.1 * z if leaf == "weight" else 0.1 * z
    if "embed" in key or leaf == "cls_token":
        return z
    gain = 3.0 if "query" in key else 2.0 if "qkv" in key or "itm_head" in key else 1.0
    return z * gain / np.sqrt(np.prod(shape[1:]))


def filled(network, prefix=""):
    """The network with stand-in weights of torch's default type."""
    state = {name: torch.as_tensor(synth(prefix + name, t.shape)) for name, t in network.state_dict().items()}
    network.load_state_dict({name: value.to(torch.get_default_dtype()) for name, value in state.items()})
    return network.eval().requires_grad_(False)


def networks(seed="logit"):
    """The image encoder, the text encoder, and the state dict of both under the published names."""
    vit, itm = filled(BlipViT(VIT), "visual_encoder."), filled(BlipItm(itm_config(seed)))
    state = {f"visual_encoder.{name}": value for name, value in vit.state_dict().items()} | itm.state_dict()
    return vit, itm, state
