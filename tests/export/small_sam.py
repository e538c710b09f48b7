"""A small SAM in the authors' own classes, with stand-in weights, and ours with the same."""

from dataclasses import replace
from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from edgeseg.export import sam
from edgeseg.export.recipe import preset
from tests.reference.mobile_sam import MEAN, STD, fill_sam

CANVAS, WIDTH, HEADS = 256, 64, 8
GATE = {precision: {"cosine": 0.999, "agreement": 0.99} for precision in ("fp32", "fp16")}
# Stand-in weights estimate nothing, and their masks are grainy and everywhere.
LIMITS = {"points_per_side": 4, "pred_iou_threshold": 0.0, "stability_threshold": 0.0, "box_nms_threshold": 0.95}
SQUARE = {"canvases": ((CANVAS, CANVAS),), "resize": {"mode": "long-side", "long": CANVAS}, "gate": GATE}
OPTIONS = {"decoder_heads": HEADS, "prompting": {"batch": 8, "points": 2}, "automatic": LIMITS}
RECIPE = replace(preset("sam-b"), name="small", clip_width=64, options=OPTIONS, **SQUARE)


def authors(seed=0):
    """The authors' model: four blocks, of which the second and the last are global."""
    norm = partial(torch.nn.LayerNorm, eps=1e-6)
    sizes = {"depth": 4, "embed_dim": 64, "num_heads": 2, "global_attn_indexes": (1, 3), "window_size": 7}
    options = {"use_rel_pos": True, "qkv_bias": True, "norm_layer": norm}
    encoder = ImageEncoderViT(img_size=CANVAS, out_chans=WIDTH, **sizes, **options)
    prompts = PromptEncoder(WIDTH, (CANVAS // 16,) * 2, (CANVAS,) * 2, 16)
    two_way = TwoWayTransformer(depth=2, embedding_dim=WIDTH, mlp_dim=128, num_heads=HEADS)
    return fill_sam(Sam(encoder, prompts, MaskDecoder(transformer_dim=WIDTH, transformer=two_way), MEAN, STD), seed)


def load(folder, model):
    """Our model with the authors' weights, through a file."""
    path = folder / "small.pth"
    torch.save(model.state_dict(), path)
    return sam.load(path, dict(model.state_dict()), RECIPE)
