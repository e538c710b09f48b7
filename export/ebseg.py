"""EBSeg's entry: sizes read from a checkpoint's tensors, the model loaded from it, and the graphs it becomes.

The published files (EBSeg_base.pth, EBSeg_large.pth) hold everything: neither SAM's nor CLIP's own files are needed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from torch import Tensor

from edgeseg.errors import InputError
from edgeseg.schema import ImageTransform, Size

from . import reference
from .checkpoint import StateDict, built, fill
from .graphs import GraphPlan
from .nets.clip import ClipConfig, ClipText
from .nets.ebseg import EBSeg, EBSegConfig, Ensemble, HeadGraph, Score, TailGraph, TextConfig
from .nets.pixel_decoder import DecoderConfig
from .nets.sam import SamConfig, taps_of
from .recipe import Recipe

CLIP_MEAN, CLIP_STD = (122.7709383, 116.7460125, 104.09373615), (68.5005327, 66.6321579, 70.3231630)
SAM_MEAN, SAM_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
DIVISOR = 32
MASK_STRIDE = 4

KEYS = "its keys begin with clip_visual_extractor, sem_seg_head, backbone"
ENCODER = "CLIP"

# What a published file holds and inference never reads: the training loss's buffer and CLIP's constant causal mask.
IGNORED = re.compile(r"criterion\..*|ov_classifier\.attn_mask")


def recognises(state: Mapping[str, Tensor]) -> bool:
    """Whether these tensors look like an EBSeg, of any size."""
    first = state.get("clip_visual_extractor.conv1.weight")
    return first is not None and first.ndim == 4 and "sem_seg_head.predictor.query_feat.weight" in state


def clip_sizes(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """CLIP's (width, patch), by which a recipe is chosen."""
    weight = state["clip_visual_extractor.conv1.weight"]
    return weight.shape[0], weight.shape[-1]


def fits(state: Mapping[str, Tensor], recipe: Recipe) -> bool:
    """Whatever else differs, the tensors tell."""
    return True


def transforms(recipe: Recipe) -> dict[str, ImageTransform]:
    """The two network inputs, by name."""
    return {
        "image_sam": ImageTransform(SAM_MEAN, SAM_STD),
        "image_clip": ImageTransform(CLIP_MEAN, CLIP_STD, recipe.options["clip_scale"]),
    }


def load(path: Path, state: StateDict, recipe: Recipe) -> EBSeg:
    """The model with the checkpoint's weights, in eval mode.

    Raises:
        CheckpointError: the tensors do not agree with each other, or keys are missing, unexpected or mis-shaped.
    """
    state = {name: value for name, value in state.items() if not IGNORED.fullmatch(name)}
    model = built(path, "a whole EBSeg checkpoint", lambda: EBSeg(detect(state, recipe)))
    return fill(path, model, state)


def detect(state: Mapping[str, Tensor], recipe: Recipe) -> EBSegConfig:
    """Every size that the tensors tell; the recipe gives what they do not (decoder heads, ensemble exponents)."""
    clip = _clip(state)
    config = EBSegConfig(
        sam=sam_sizes(state),
        clip=clip,
        decoder=_decoder(state, recipe, clip),
        text=_text(state),
        ensemble=Ensemble(**recipe.options["ensemble"]),
    )
    _check(config)
    return config


def _check(config: EBSegConfig) -> None:
    """Refuse sizes of which no model can be made: tensors without elements, heads that do not divide a width."""
    parts = [part for part in (config.sam, config.clip, config.decoder, config.text) if part is not None]
    for part in parts:
        sizes = {name: value for name, value in vars(part).items() if name not in ("taps", "surgery_start")}
        wrong = {name: value for name, value in sizes.items() if value < 1}
        if wrong:
            raise ValueError(f"{type(part).__name__} has {wrong}")
        if part.width % part.heads:
            raise ValueError(f"{type(part).__name__}: {part.heads} heads do not divide a width of {part.width}")


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many different numbers stand where `pattern` has its group."""
    return len({match[1] for name in state if (match := re.match(pattern, name))})


def _square(count: int) -> int:
    side = math.isqrt(max(count, 0))
    if side * side != count:
        raise ValueError(f"a position table of {count} rows is not square")
    return side


def sam_sizes(state: Mapping[str, Tensor]) -> SamConfig:
    """Every size of the encoder under `backbone.`. Raises LookupError or ValueError where the tensors do not tell."""
    depth = _count(state, r"backbone\.blocks\.(\d+)\.")
    tables = [state[f"backbone.blocks.{i}.attn.rel_pos_h"] for i in range(depth)]
    width, _, _, patch = state["backbone.patch_embed.proj.weight"].shape
    grid = state["backbone.pos_embed"].shape[1]
    taps = taps_of([len(table) for table in tables], grid)
    if len(taps) != 4:
        raise ValueError(f"SAM has {len(taps)} global blocks, EBSeg reads four")
    windows = {(len(table) + 1) // 2 for i, table in enumerate(tables) if i not in taps} or {grid}
    if len(windows) != 1:
        raise ValueError(f"SAM's windows differ: {sorted(windows)}")
    return SamConfig(
        width=width,
        depth=depth,
        heads=width // tables[0].shape[1],
        patch=patch,
        grid=grid,
        window=windows.pop(),
        taps=taps,
        hidden=state["backbone.blocks.0.mlp.lin1.weight"].shape[0],
    )


def _clip(state: Mapping[str, Tensor]) -> ClipConfig:
    prefix = "clip_visual_extractor"
    trunk = _count(state, prefix + r"\.resblocks\.(\d+)\.")
    surgery = _count(state, prefix + r"\.resblocks\.(\d+)\.attn\.qkv\.")
    if trunk % 3:
        raise ValueError(f"CLIP's trunk has {trunk} blocks, which is no multiple of three")
    width, patch = clip_sizes(state)
    mask_width = state["sem_seg_head.pixel_decoder.mask_features.weight"].shape[0]
    return ClipConfig(
        width=width,
        heads=state["sem_seg_head.predictor.attn_proj.layers.2.weight"].shape[0] // mask_width,
        patch=patch,
        grid=_square(state[f"{prefix}.positional_embedding"].shape[0] - 1),
        trunk=trunk,
        tail=_count(state, r"clip_rec_head\.resblocks\.(\d+)\."),
        surgery_start=trunk - surgery,
        hidden=state[f"{prefix}.resblocks.0.mlp.c_fc.weight"].shape[0],
        embedding=state[f"{prefix}.proj"].shape[1],
    )


def _decoder(state: Mapping[str, Tensor], recipe: Recipe, clip: ClipConfig) -> DecoderConfig:
    pixel, predictor = "sem_seg_head.pixel_decoder", "sem_seg_head.predictor"
    layer = f"{pixel}.transformer.encoder.layers.0"
    samples = state[f"{layer}.self_attn.attention_weights.weight"].shape[0]
    queries, width = state[f"{predictor}.query_feat.weight"].shape
    return DecoderConfig(
        inputs=state["backbone.patch_embed.proj.weight"].shape[0],
        clip=clip.width,
        width=width,
        heads=recipe.options["decoder_heads"],
        points=samples // (3 * recipe.options["decoder_heads"]),
        encoder_layers=_count(state, pixel + r"\.transformer\.encoder\.layers\.(\d+)\."),
        encoder_hidden=state[f"{layer}.linear1.weight"].shape[0],
        decoder_layers=_count(state, predictor + r"\.transformer_ffn_layers\.(\d+)\."),
        decoder_hidden=state[f"{predictor}.transformer_ffn_layers.0.linear1.weight"].shape[0],
        queries=queries,
        embedding=clip.embedding,
        bias_heads=clip.heads,
    )


def _text(state: Mapping[str, Tensor]) -> TextConfig | None:
    if "ov_classifier.token_embedding.weight" not in state:
        return None
    words, width = state["ov_classifier.token_embedding.weight"].shape
    # CLIP's text heads are 64 wide in every published size.
    depth = _count(state, r"ov_classifier\.transformer\.resblocks\.(\d+)\.")
    return TextConfig(width, width // 64, depth, state["ov_classifier.positional_embedding"].shape[0], words)


def check_canvas(canvas: Size) -> None:
    """A canvas must be a multiple of 32 both ways. Raises InputError."""
    if any(extent % DIVISOR for extent in canvas):
        nearest = "x".join(str(max(DIVISOR, round(extent / DIVISOR) * DIVISOR)) for extent in canvas)
        asked = f"export a canvas of {canvas[0]}x{canvas[1]}"
        raise InputError(asked, f"EBSeg's sizes are multiples of {DIVISOR}", f"use --size {nearest}")


def clip_input(canvas: Size, scale: float) -> Size:
    """The size of CLIP's input: floor of the scaled canvas, as torch's interpolate has it."""
    return int(canvas[0] * scale), int(canvas[1] * scale)


def graphs(model: EBSeg, recipe: Recipe, canvas: Size) -> list[GraphPlan]:
    """The graphs of one canvas, in the order they run."""
    config = model.config
    clip_size = clip_input(canvas, recipe.options["clip_scale"])
    clip_grid = clip_size[0] // config.clip.patch, clip_size[1] // config.clip.patch
    sam_grid = canvas[0] // config.sam.patch, canvas[1] // config.sam.patch
    sam = [f"sam_{i}" for i in config.sam.taps]
    taps = [f"clip_{config.clip.trunk * i // 3}" for i in (1, 2)]
    head = HeadGraph(model.sem_seg_head, (sam_grid, clip_grid))
    tail = TailGraph(model.clip_rec_head, clip_grid)
    bias, masks, streams = "attention_bias", "mask_logits", ["clip_tokens", "clip_surgery"]
    return [
        GraphPlan("sam", model.backbone, canvas, ["image_sam"], sam),
        GraphPlan("clip_trunk", model.clip_visual_extractor, canvas, ["image_clip"], [*taps, *streams]),
        GraphPlan("head", head, canvas, [*sam, *taps, "clip_tokens"], [masks, "embedding_a", bias]),
        GraphPlan("clip_tail", tail, canvas, [*streams, bias, masks], ["embedding_b", "embedding_d"]),
    ]


def plans(model: EBSeg, recipe: Recipe, canvas: Size) -> list[GraphPlan]:
    """The graphs of one canvas and the scoring."""
    return [*graphs(model, recipe, canvas), score_graph(model)]


def case(model: EBSeg, image: npt.NDArray[np.uint8], text: Tensor, number: int) -> dict[str, Any]:
    """Both kinds of class, trained and new, so that both branches of the scoring are checked."""
    return reference.embedded_case(image, text, number)


def labels(values: Mapping[str, Tensor], canvas: Size) -> npt.NDArray[np.uint16]:
    """Of masks and probabilities, see `reference.labels`."""
    return reference.labels(values["mask_logits"], values["class_probs"], canvas)


def score_graph(model: EBSeg, most_classes: int = 1024) -> GraphPlan:
    """The scoring graph, which fits any canvas; the class count is dynamic."""
    inputs = ["embedding_a", "embedding_b", "embedding_d", "text", "overlap"]
    dynamic = {"text": {0: "C"}, "overlap": {0: "C"}, "class_probs": {2: "C"}}
    return GraphPlan("score", Score(model), None, inputs, ["class_probs"], dynamic, {"C": (1, 150, most_classes)})


def embedding(model: EBSeg) -> int:
    """D of the class embeddings."""
    return model.config.clip.embedding


def resolved(model: EBSeg, recipe: Recipe) -> dict[str, Any]:
    """What the bundle's recipe holds for EBSeg alone."""
    return {
        "divisor": DIVISOR,
        "mask_stride": MASK_STRIDE,
        "queries": model.config.decoder.queries,
        "clip_scale": recipe.options["clip_scale"],
        "ensemble": recipe.options["ensemble"],
        "logit_scale": round(math.exp(float(cast(Tensor, model.ov_classifier.logit_scale))), 4),
    }


def text_tower(model: EBSeg) -> ClipText | None:
    """CLIP's text encoder, or None where the checkpoint has none."""
    return model.ov_classifier if isinstance(model.ov_classifier, ClipText) else None
