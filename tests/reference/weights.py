"""Stand-in weights for an EBSeg checkpoint: names and shapes of the released files, numbers from a seeded generator.

Each tensor has its own random stream, seeded by its name, so any part can be made alone. The numbers are those with
which the oracle in ../shared was computed. numpy only: a test without torch may use it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from tests.reference.sizes import SIZES, Sizes

Shapes = dict[str, tuple[int, ...]]
Array = npt.NDArray[np.float32]

# Leaf names of tables that are looked up or added; no layer's fan-in says how large their numbers should be.
TABLES = {"class_embedding", "positional_embedding", "pos_embed", "rel_pos_h", "rel_pos_w", "level_embed", "bg_embed"}


def ebseg_weights(variant: str, seed: int = 0, wanted: Callable[[str], bool] = lambda key: True) -> dict[str, Array]:
    """The float32 tensors of variant "b", "l" or "tiny" whose names are `wanted`.

    Without the causal text mask and the training loss's buffer, which are no weights: a loader must do without them.
    """
    shapes = ebseg_shapes(variant)
    return {key: draw(key, shape, seed) for key, shape in shapes.items() if is_weight(key) and wanted(key)}


def is_weight(key: str) -> bool:
    """Whether the generator makes this entry."""
    return not key.endswith("attn_mask") and not key.startswith("criterion")


def draw(key: str, shape: tuple[int, ...], seed: int = 0) -> Array:
    """The float32 tensor of one entry."""
    stream = np.random.Generator(np.random.PCG64([seed, zlib.crc32(key.encode())]))
    noise = np.asarray(stream.standard_normal(shape, dtype=np.float32))
    values = _vector(key, noise) if len(shape) < 2 else _matrix(key, noise)
    for factor in _gains(key, len(shape)):
        values = values * factor
    return np.asarray(values, dtype=np.float32)


def _vector(key: str, noise: Array) -> Array:
    leaf = key.rpartition(".")[2]
    if leaf == "logit_scale":
        return np.full_like(noise, 4.6052 if key.startswith("ov_classifier") else 1.0)
    return 1 + 0.1 * noise if leaf == "weight" else 0.02 * noise


def _matrix(key: str, noise: Array) -> Array:
    leaf = key.rpartition(".")[2]
    if leaf in TABLES or "embed.weight" in key or "query_feat" in key:
        return 0.2 * noise
    # CLIP multiplies by `proj` from the right, so there the inputs come first.
    inputs = noise.shape[0] if leaf in ("proj", "text_projection") else np.prod(noise.shape[1:])
    return noise * (1.0 / np.sqrt(inputs))


def _gains(key: str, rank: int) -> Iterator[float]:
    """Factors that keep words, queries and masks apart where plain noise would make them all alike."""
    if "token_embedding" in key:
        yield 20
    if "predictor.query" in key:
        yield 5
    if "predictor." in key and "in_proj_weight" in key:
        yield 3
    if "mask_embed" in key and key.endswith(".weight") and rank > 1:
        yield 1.7


def ebseg_shapes(variant: str) -> Shapes:
    """Name → shape of every entry of a released file (variant "b" or "l"), or of the "tiny" one."""
    sizes = SIZES[variant]
    parts: dict[str, Shapes] = {
        "clip_visual_extractor": _clip_trunk(sizes),
        "clip_rec_head": _clip_tail(sizes),
        "ov_classifier": _text(sizes),
        "backbone": _sam(sizes),
        "sem_seg_head.pixel_decoder": _pixel_decoder(sizes),
        "sem_seg_head.predictor": _mask_decoder(sizes),
        "sem_seg_head.clip_fusion_layers": _fusion(sizes),
        "criterion": {"empty_weight": (sizes.training_classes + 1,)},
    }
    return _nest(parts)


def _nest(parts: dict[str, Shapes]) -> Shapes:
    return {f"{outer}.{inner}": shape for outer, part in parts.items() for inner, shape in part.items()}


def _repeat(name: str, count: int, part: Shapes) -> Shapes:
    return _nest({f"{name}.{i}": part for i in range(count)})


def _pair(name: str, *shape: int) -> Shapes:
    """A layer with a bias, or with one number a norm."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _attention(width: int) -> Shapes:
    projections = {"in_proj_weight": (3 * width, width), "in_proj_bias": (3 * width,)}
    return projections | _pair("out_proj", width, width)


def _mlp(inputs: int, hidden: int, outputs: int) -> Shapes:
    pairs = [(hidden, inputs), (hidden, hidden), (outputs, hidden)]
    return {key: shape for i, pair in enumerate(pairs) for key, shape in _pair(f"layers.{i}", *pair).items()}


def _clip_block(width: int, attention: Shapes) -> Shapes:
    mlp = _pair("mlp.c_fc", 4 * width, width) | _pair("mlp.c_proj", width, 4 * width)
    return _pair("ln_1", width) | _pair("ln_2", width) | mlp | _nest({"attn": attention})


def _surgery_block(width: int) -> Shapes:
    return _clip_block(width, _pair("qkv", 3 * width, width) | _pair("proj", width, width))


def _clip_trunk(sizes: Sizes) -> Shapes:
    width, patch = sizes.clip_width, sizes.clip_patch
    plain, surgery = _clip_block(width, _attention(width)), _surgery_block(width)
    kinds = {str(i): plain if i < sizes.surgery_start else surgery for i in range(sizes.clip_trunk)}
    stem: Shapes = {
        "class_embedding": (width,),
        "positional_embedding": (sizes.clip_grid**2 + 1, width),
        "proj": (width, sizes.embedding),
        "conv1.weight": (width, 3, patch, patch),
    }
    return stem | _pair("ln_pre", width) | _pair("ln_post", width) | _nest({"resblocks": _nest(kinds)})


def _clip_tail(sizes: Sizes) -> Shapes:
    width = sizes.clip_width
    ends: Shapes = {"proj": (width, sizes.embedding), **_pair("ln_post", width)}
    return ends | _repeat("resblocks", sizes.clip_tail, _surgery_block(width))


def _text(sizes: Sizes) -> Shapes:
    width, context = sizes.text_width, sizes.text_context
    ends: Shapes = {
        "token_embedding.weight": (sizes.words, width),
        "positional_embedding": (context, width),
        "attn_mask": (context, context),
        "text_projection": (width, sizes.embedding),
        "logit_scale": (),
        "bg_embed": (1, sizes.embedding),
    }
    blocks = _repeat("transformer.resblocks", sizes.text_depth, _clip_block(width, _attention(width)))
    return ends | _pair("ln_final", width) | blocks


def _sam(sizes: Sizes) -> Shapes:
    width, grid = sizes.sam_width, sizes.sam_grid
    stem = {"pos_embed": (1, grid, grid, width)} | _pair("patch_embed.proj", width, 3, sizes.sam_patch, sizes.sam_patch)
    reach = {i: grid if i in sizes.taps else sizes.window for i in range(sizes.sam_depth)}
    return stem | _nest({f"blocks.{i}": _sam_block(width, width // sizes.sam_heads, side) for i, side in reach.items()})


def _sam_block(width: int, head: int, side: int) -> Shapes:
    tables: Shapes = {f"attn.rel_pos_{axis}": (2 * side - 1, head) for axis in "hw"}
    attention = tables | _pair("attn.qkv", 3 * width, width) | _pair("attn.proj", width, width)
    mlp = _pair("mlp.lin1", 4 * width, width) | _pair("mlp.lin2", width, 4 * width)
    return _pair("norm1", width) | _pair("norm2", width) | attention | mlp


def _fusion(sizes: Sizes) -> Shapes:
    layer = _pair("0", sizes.clip_width) | _pair("1", sizes.sam_width, sizes.clip_width, 1, 1)
    return _nest({str(i): layer for i in range(3)})


def _pixel_decoder(sizes: Sizes) -> Shapes:
    width, inputs = sizes.width, sizes.sam_width
    ends: Shapes = {"adapter_1.weight": (width, inputs, 1, 1), "layer_1.weight": (width, width, 3, 3)}
    ends |= _pair("adapter_1.norm", width) | _pair("layer_1.norm", width) | _pair("mask_features", width, width, 1, 1)
    ends["transformer.level_embed"] = (3, width)
    projections = _repeat("input_proj", 3, _pair("0", width, inputs, 1, 1) | _pair("1", width))
    return ends | projections | _repeat("transformer.encoder.layers", sizes.encoder_layers, _encoder_layer(sizes))


def _encoder_layer(sizes: Sizes) -> Shapes:
    width, samples = sizes.width, sizes.heads * 3 * sizes.points
    rows = {"sampling_offsets": 2 * samples, "attention_weights": samples, "value_proj": width, "output_proj": width}
    layer: Shapes = {}
    for name, count in rows.items():
        layer |= _pair(f"self_attn.{name}", count, width)
    return layer | _feed_forward(width, sizes.encoder_hidden) | _pair("norm1", width) | _pair("norm2", width)


def _feed_forward(width: int, hidden: int) -> Shapes:
    return _pair("linear1", hidden, width) | _pair("linear2", width, hidden)


def _mask_decoder(sizes: Sizes) -> Shapes:
    width, count = sizes.width, sizes.decoder_layers
    rows = {"query_feat": sizes.queries, "query_embed": sizes.queries, "level_embed": 3}
    shapes: Shapes = {"logit_scale": ()} | {f"{name}.weight": (number, width) for name, number in rows.items()}
    norm, attention = _pair("norm", width), _attention(width)
    shapes |= _repeat("transformer_self_attention_layers", count, norm | _nest({"self_attn": attention}))
    shapes |= _repeat("transformer_cross_attention_layers", count, norm | _nest({"multihead_attn": attention}))
    shapes |= _repeat("transformer_ffn_layers", count, norm | _feed_forward(width, sizes.decoder_hidden))
    outputs = {"mask_embed": width, "mask_embed1": sizes.embedding, "attn_proj": width * sizes.clip_heads}
    shapes |= _nest({name: _mlp(width, width, number) for name, number in outputs.items()})
    pool = _pair("pool_proj.0", width) | _pair("pool_proj.1", width, width)
    return shapes | pool | _pair("decoder_norm", width) | _pair("bias_scaling", 1, 1)
