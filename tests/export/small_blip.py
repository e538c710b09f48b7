"""A small BLIP with the names of the published retrieval file, its sizes not alike so that no two can be confused."""

import zlib
from dataclasses import replace

import numpy as np
import torch

from edgeseg.export import bundle
from edgeseg.export.nets.blip_itm import BlipItm, ItmConfig
from edgeseg.export.nets.blip_vit import BlipViT, VitConfig
from edgeseg.export.recipe import preset
from tests.minilm import small_vocabulary

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


VIT_64 = VitConfig(width=128, depth=2, heads=2, patch=16, grid=5, hidden=160)


def write_small(folder, seed=3):
    """A small BLIP's checkpoint in the published layout, what is never read too, and a vocabulary beside it."""
    vocabulary = small_vocabulary()
    sizes = {"width": 128, "heads": 2, "depth": 4, "hidden": 160, "words": len(vocabulary) + 2}
    vit = filled(BlipViT(VIT_64), "visual_encoder.")
    itm = filled(BlipItm(ItmConfig(**sizes, positions=40, image_width=128, layer=1, head=1)))
    state = {f"visual_encoder.{name}": value for name, value in vit.state_dict().items()} | itm.state_dict()
    state |= {"temp": torch.tensor(0.07), "image_queue": torch.zeros(8, 9), "ptr_queue": torch.zeros(1).long()}
    state |= {"visual_encoder_m.cls_token": torch.zeros(1, 1, 128), "text_proj.bias": torch.zeros(4)}
    state["text_encoder.embeddings.position_ids"] = torch.arange(40)[None]
    folder.mkdir(exist_ok=True)
    torch.save({"model": state, "epoch": 5}, folder / "model_large_retrieval_flickr.pth")
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", "utf-8")
    return folder / "model_large_retrieval_flickr.pth"


def small_recipe():
    """The preset at these sizes."""
    options = {"layer": 1, "head": 1, "seed": "logit", "caption": "a photo of"}
    return replace(preset("pnp-ovss"), clip_width=128, options=options)


def export_small(folder, monkeypatch, sizes=((96, 96),)):
    """The small BLIP's bundle."""
    recipe = small_recipe()
    monkeypatch.setattr(bundle, "preset_names", lambda: ["pnp-ovss"])
    monkeypatch.setattr(bundle, "preset", lambda name: recipe)
    path = write_small(folder)
    return bundle.export_bundle(bundle.Checkpoint(path, text_encoder=folder), list(sizes), folder / "small.bundle")
