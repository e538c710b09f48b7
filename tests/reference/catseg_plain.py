"""CAT-Seg as its authors formulate it, on the parameters of this project's modules: rolls, pads, concatenations.

CLIP's blocks are open_clip's. Slow and plain: what the rewritten networks are held to where no golden tensors are.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from edgeseg.export.nets.swin import shift_mask


def swin_block(config, block, x, guidance, shift):
    """Roll, cut windows, attend to [x, guidance], put back, roll back."""
    n, side, w = len(x), config.grid, config.window
    y = torch.cat((block.norm1(x), guidance.expand(n, -1, -1)), dim=-1).reshape(n, side, side, -1)
    y = y.roll((-shift, -shift), dims=(1, 2)).reshape(n, side // w, w, side // w, w, -1)
    y = y.permute(0, 1, 3, 2, 4, 5).reshape(n, -1, w * w, y.shape[-1])
    heads = [
        part.reshape(*part.shape[:3], config.heads, -1).transpose(2, 3)
        for part in (block.attn.q(y), block.attn.k(y), block.attn.v(y[..., : config.width]))
    ]
    scores = heads[0] * heads[0].shape[-1] ** -0.5 @ heads[1].transpose(-2, -1)
    if shift:
        scores = scores + shift_mask(side, w, shift)[None, :, None]
    out = block.attn.proj((scores.softmax(-1) @ heads[2]).transpose(2, 3).flatten(3))
    out = out.reshape(n, side // w, side // w, w, w, -1).permute(0, 1, 3, 2, 4, 5).reshape(n, side, side, -1)
    x = x + out.roll((shift, shift), dims=(1, 2)).reshape(n, side * side, -1)
    return x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))


def swin_pair(config, pair, x, appearance):
    """A block, and one whose windows are shifted by half."""
    guidance = pair.guidance_norm(appearance)
    x = swin_block(config, pair.block_1, x, guidance, 0)
    return swin_block(config, pair.block_2, x, guidance, config.window // 2)


def class_layer(config, layer, x, named):
    """Pool, append pads to 256 classes, attend over the classes, drop the pads, resize back."""
    size, count, pooling = (config.swin.grid, config.swin.grid), len(x), config.pooling
    y = F.avg_pool2d(x.transpose(1, 2).reshape(count, -1, *size), pooling)
    y = y.flatten(2).permute(2, 0, 1)  # positions, classes, channels
    y = torch.cat((y, layer.padding_tokens.expand(len(y), 256 - count, -1)), dim=1)
    guidance = torch.cat((named[None], layer.padding_guidance.expand(1, 256 - count, -1)), dim=1)
    normed = layer.norm1(y)
    both = torch.cat((normed, guidance.expand(len(y), -1, -1)), dim=-1)
    q, k, v = (
        part.reshape(*part.shape[:2], config.swin.heads, -1)
        for part in (layer.attention.q(both), layer.attention.k(both), layer.attention.v(normed))
    )
    q, k = F.elu(q) + 1, F.elu(k) + 1
    weights = torch.einsum("nlhd,nshd->nhls", q, k)
    weights = weights / (weights.sum(-1, keepdim=True) + 1e-6)
    y = y + torch.einsum("nhls,nshd->nlhd", weights, v).flatten(2)
    y = y + layer.MLP(layer.norm2(y))
    y = y[:, :count].permute(1, 2, 0).reshape(count, -1, size[0] // pooling, size[1] // pooling)
    return x + F.interpolate(y, size=size, mode="bilinear", align_corners=True).flatten(2).transpose(1, 2)


def decoder_stage(stage, x, guidance):
    """Enlarge, append the guidance to every class, two convolutions."""
    return stage.conv.double_conv(torch.cat((stage.up(x), guidance.expand(len(x), -1, -1, -1)), dim=1))


def aggregate(net, features, early, late, text):
    """One view: features (1, L, D), guidance maps (1, ·, 2h, 2w), (1, ·, 4h, 4w), text (S, D) → logits (S, 4h, 4w)."""
    swin, size = net.config.swin, (net.config.swin.grid,) * 2
    cost = F.normalize(text, dim=-1) @ F.normalize(features[0], dim=-1).t()
    x = net.conv1(cost.reshape(-1, 1, *size)).flatten(2).transpose(1, 2)
    image = features.transpose(1, 2).reshape(1, -1, *size)
    appearance = net.guidance_projection(image).flatten(2).transpose(1, 2)
    named = net.text_guidance_projection(F.normalize(text, dim=-1))
    for layer in net.layers:
        x = class_layer(net.config, layer.attention, swin_pair(swin, layer.swin_block, x, appearance), named)
    x = x.transpose(1, 2).reshape(len(text), -1, *size)
    for stage, project, guide in zip(
        (net.decoder1, net.decoder2), net.decoder_guidance_projection, (early, late), strict=True
    ):
        x = decoder_stage(stage, x, project(guide))
    return net.head(x)[:, 0]


def clip_maps(model, image):
    """Dense features (1, L, D) and both guidance maps of an image (1, 3, S, S) of CLIP's own side, by open_clip's code.

    In the last block no token attends: each gets its own value, and the class token's residual.
    """
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    visual, sizes = model.clip.visual, model.config.clip
    shape = CLIPVisionCfg(
        layers=sizes.trunk,
        width=sizes.width,
        head_width=64,
        mlp_ratio=sizes.hidden / sizes.width,
        patch_size=sizes.patch,
        image_size=int(image.shape[-1]),
    )
    with torch.device("meta"):
        tower = _build_vision_tower(sizes.embedding, shape, quick_gelu=True)
    tower.load_state_dict(_packed(visual.state_dict()), assign=True)
    tower.eval()
    x = tower._embeds(image)
    kept = []
    for number, block in enumerate(tower.transformer.resblocks[:-1]):
        x = block(x)
        if number in model.config.taps:
            kept.append(x[:, 1:])
    last, width = tower.transformer.resblocks[-1], sizes.width
    values = F.linear(last.ln_1(x), last.attn.in_proj_weight[2 * width :], last.attn.in_proj_bias[2 * width :])
    y = x[:, :1] + last.attn.out_proj(values)
    y = y + last.mlp(last.ln_2(y))
    features = (tower.ln_post(y) @ tower.proj)[:, 1:]
    side = sizes.grid
    maps = [tokens.transpose(1, 2).reshape(1, width, side, side) for tokens in kept]
    return features, model.upsample1(maps[0]), model.upsample2(maps[1])


def _packed(state):
    """The state of an image encoder with q, k and v in one matrix."""
    made = {name: value for name, value in state.items() if "_proj_weight" not in name}
    for name in state:
        if name.endswith("q_proj_weight"):
            parts = [state[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            made[name.replace("q_proj_weight", "in_proj_weight")] = torch.cat(parts)
    return made
