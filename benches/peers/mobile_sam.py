"""MobileSAM at 512x512: a vision transformer with trained weights, on which quantizers are compared.

The weights are the published checkpoint (Apache-2.0), which this project does not carry. The encoder is a TinyViT,
5 million weights in MatMuls and in Convs; timm has its architecture. What its features are worth is seen in the masks
that SAM's decoder, in fp32, makes of them for a grid of points.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from .made import OPSET
from .side import Array

if TYPE_CHECKING:
    import torch

SIZE = 512  # the published size is 1024; CamVid's photos are 480 wide
GRID = 8  # points along each side of a photo
_STRIDE = 16
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of SAM, for values up to 255
_STAGES: dict[str, Any] = {"embed_dims": (64, 128, 160, 320), "depths": (2, 2, 6, 2), "num_heads": (2, 4, 5, 10)}
_WIDTH = 256  # channels of the features


def photo(path: Path) -> tuple[Array, tuple[int, int]]:
    """A photo as the encoder reads it, (1, 3, 512, 512) float32, padded right and below, and its size there (H, W)."""
    with Image.open(path) as opened:
        scale = SIZE / max(opened.size)
        small = opened.convert("RGB").resize([round(side * scale) for side in opened.size], Image.Resampling.BILINEAR)
    rgb = (np.asarray(small, np.float32) - np.array(_MEAN, np.float32)) / np.array(_STD, np.float32)
    padded: Array = np.zeros((SIZE, SIZE, 3), np.float32)
    padded[: rgb.shape[0], : rgb.shape[1]] = rgb
    return np.ascontiguousarray(padded.transpose(2, 0, 1)[None]), (rgb.shape[0], rgb.shape[1])


def export(weights: Path, file: Path) -> None:
    """The encoder as torch.onnx writes it: `image` (1, 3, 512, 512) → `features` (1, 256, 32, 32)."""
    import torch

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer warns of each shape that becomes a constant
        torch.onnx.export(
            _encoder(_state(weights)),
            (torch.zeros(1, 3, SIZE, SIZE),),
            str(file),
            opset_version=OPSET,
            dynamo=False,
            input_names=["image"],
            output_names=["features"],
        )


class Masks:
    """SAM's prompt encoder and mask decoder with the same checkpoint's weights.

    Args:
        weights: the checkpoint.
    """

    def __init__(self, weights: Path) -> None:
        from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer

        side = SIZE // _STRIDE
        transformer = TwoWayTransformer(depth=2, embedding_dim=_WIDTH, mlp_dim=2048, num_heads=8)
        self._prompts = PromptEncoder(_WIDTH, (side, side), (SIZE, SIZE), mask_in_chans=16).eval()
        self._decoder = MaskDecoder(transformer_dim=_WIDTH, transformer=transformer).eval()
        for module, prefix in ((self._prompts, "prompt_encoder."), (self._decoder, "mask_decoder.")):
            module.load_state_dict(_part(_state(weights), prefix))

    def __call__(self, features: Array, size: tuple[int, int]) -> Array:
        """(64, 128, 128) bool: the most probable mask at each of 8x8 points of a photo of this size (H, W)."""
        import torch

        rows, columns = ((np.arange(GRID) + 0.5) / GRID * side for side in size)
        points = torch.from_numpy(np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 1, 2)).float()
        with torch.inference_mode():
            sparse, dense = self._prompts((points, torch.ones(len(points), 1)), None, None)
            masks, _ = self._decoder(torch.from_numpy(features), self._prompts.get_dense_pe(), sparse, dense, False)
        found: Array = masks[:, 0].numpy() > 0
        return found


def overlap(masks: Array, reference: Array) -> float:
    """Mean IoU of masks (N, H, W) with those of the fp32 encoder; points where both are empty do not count."""
    both = (masks & reference).sum((1, 2))
    either = (masks | reference).sum((1, 2))
    return float(np.mean(both[either > 0] / either[either > 0]))


def chosen(folder: Path, count: int) -> list[Path]:
    """So many photos of a folder, evenly spread over their order by name."""
    found: Sequence[Path] = sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))
    if len(found) < count:
        raise SystemExit(f"{folder.name} holds {len(found)} photos, and {count} are needed")
    return [found[index * len(found) // count] for index in range(count)]


def _encoder(state: dict[str, torch.Tensor]) -> torch.nn.Module:
    import torch
    from segment_anything.modeling.common import LayerNorm2d
    from timm.layers.config import set_fused_attn
    from timm.models.tiny_vit import TinyVit

    set_fused_attn(False)
    body: Any = TinyVit(num_classes=0, window_sizes=(7, 7, 14, 7), **_STAGES)
    body.stages[3].downsample.conv2.conv.stride = (1, 1)  # SAM's encoders reduce by 16, TinyViT by 32
    body.head = torch.nn.Identity()
    neck = torch.nn.Sequential(
        torch.nn.Conv2d(_STAGES["embed_dims"][-1], _WIDTH, 1, bias=False),
        LayerNorm2d(_WIDTH),
        torch.nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1, bias=False),
        LayerNorm2d(_WIDTH),
    )
    inner = _part(state, "image_encoder.")
    neck.load_state_dict(_part(inner, "neck."))
    unused = ("neck.", "norm_head.", "head.")
    kept = {_name_in_timm(name): value for name, value in inner.items() if not name.startswith(unused)}
    body.load_state_dict(kept)
    return torch.nn.Sequential(body, neck).eval()


def _name_in_timm(name: str) -> str:
    """The checkpoint has a stage's downsampling at the end of the stage before, timm at its beginning."""
    words = name.split(".")
    if words[:2] == ["patch_embed", "seq"]:
        words[1:3] = [{"0": "conv1", "2": "conv2"}[words[2]]]
    if words[0] == "layers":
        words[:2] = ["stages", str(int(words[1]) + (words[2] == "downsample"))]
    return ".".join("conv" if word == "c" else word for word in words)


def _state(weights: Path) -> dict[str, Any]:
    import torch

    state: dict[str, Any] = torch.load(weights, map_location="cpu", weights_only=True)
    return state


def _part(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
