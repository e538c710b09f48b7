"""MobileSAM as its authors assemble it, out of public packages: segment-anything, and timm's TinyViT in front.

timm writes TinyViT by itself and numbers its stages otherwise; MobileSAM's third step between stages does not halve.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from timm.models.tiny_vit import TinyVit

from tests.export.small import synth

NAMES = [("patch_embed.seq.0", "patch_embed.conv1"), ("patch_embed.seq.2", "patch_embed.conv2"), (".c.", ".conv.")]
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


class TinyEncoder(torch.nn.Module):
    """What `Sam` takes as its image encoder."""

    img_size = 1024

    def __init__(self):
        super().__init__()
        sizes: dict[str, Any] = {
            "embed_dims": (64, 128, 160, 320),
            "num_heads": (2, 4, 5, 10),
            "window_sizes": (7, 7, 14, 7),
        }
        self.trunk = TinyVit(num_classes=0, depths=(2, 2, 6, 2), drop_path_rate=0.0, **sizes)
        last: Any = self.trunk.stages[3]
        last.downsample.conv2.conv.stride = (1, 1)
        convolutions = (torch.nn.Conv2d(320, 256, 1, bias=False), torch.nn.Conv2d(256, 256, 3, padding=1, bias=False))
        self.neck = torch.nn.Sequential(convolutions[0], LayerNorm2d(256), convolutions[1], LayerNorm2d(256))

    def forward(self, image):
        return self.neck(self.trunk.forward_features(image))


def timm_name(name):
    """layers.N.downsample is the beginning of timm's stage N + 1."""
    for theirs, timms in NAMES:
        name = name.replace(theirs, timms)
    parts = name.split(".")
    if parts[0] == "layers":
        parts[:2] = ["stages", str(int(parts[1]) + (parts[2] == "downsample"))]
    return ".".join(parts)


def parts(canvas=1024):
    """Prompt encoder and mask decoder with the published sizes."""
    decoder = TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8)
    masks = MaskDecoder(transformer_dim=256, transformer=decoder)
    return PromptEncoder(256, (canvas // 16,) * 2, (canvas,) * 2, 16), masks


def mobile_sam(path: Path):
    """The authors' model with the published weights."""
    state = torch.load(path, weights_only=True)
    model = Sam(TinyEncoder(), *parts(), MEAN, STD)
    renamed = {}
    for name, value in state.items():
        part, _, rest = name.partition(".")
        if part != "image_encoder" or rest.startswith("neck."):
            renamed[name] = value
        elif not rest.startswith(("head.", "norm_head.")):
            renamed[f"image_encoder.trunk.{timm_name(rest)}"] = value
    missing, unexpected = model.load_state_dict(renamed, strict=False)
    assert not unexpected
    assert all("num_batches_tracked" in name or "trunk.head" in name for name in missing), missing
    return model.eval()


def fill_sam(model, seed=0):
    """Stand-in weights for an authors' SAM, its batch of frequencies included."""
    state = {name: torch.from_numpy(synth(name, value.shape, seed)) for name, value in model.state_dict().items()}
    for name in state:
        if "gaussian_matrix" in name:
            random = np.random.Generator(np.random.PCG64(seed))
            state[name] = torch.from_numpy(random.standard_normal(state[name].shape, dtype=np.float32))
    model.load_state_dict(state)
    return model.eval()
