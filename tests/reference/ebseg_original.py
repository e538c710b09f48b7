"""EBSeg's inference as its authors formulate it, on the released names of the weights: the yardstick for ours.

It is true to the original in value and in cost: nothing is baked, fused, skipped or computed once that the original
computes at each call or ten times. Plain torch; slow on purpose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.reference.ebseg_decoders import Predictions, mask_decoder, pixel_decoder
from tests.reference.ebseg_encoders import ClipFeatures, clip_tail, clip_trunk, sam_maps
from tests.reference.ebseg_encoders import classifier as text_classifier
from tests.reference.part import Part, resize
from tests.reference.sizes import Sizes

# Mean and standard deviation of R, G, B in 0..255; CLIP's are published for 0..1.
CLIP_COLOURS = (
    [255 * x for x in (0.48145466, 0.4578275, 0.40821073)],
    [255 * x for x in (0.26862954, 0.26130258, 0.27577711)],
)
SAM_COLOURS = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
DIVISOR = 32

State = Mapping[str, Tensor]


def size_of(x: Tensor) -> tuple[int, int]:
    """(H, W) of anything that ends in them."""
    return x.shape[-2], x.shape[-1]


@dataclass(frozen=True)
class Seen:
    """What the encoders and the pixel decoder make of an image; the batch axis N is 1."""

    clip: ClipFeatures
    sam: dict[str, Tensor]  # res2..res5; all but res2 with CLIP's map added
    features: Tensor  # [N, width, H/4, W/4]
    levels: list[Tensor]  # [N, width, H/s, W/s] for the strides s = 32, 16, 8
    size: tuple[int, int]  # of the image
    padded: tuple[int, int]


@dataclass(frozen=True)
class Outcome:
    """The class scores and what they were made from."""

    scores: Tensor  # [C, H, W]: sum over the queries of class probability times mask probability
    class_probs: Tensor  # [1, Q, C]
    predictions: Predictions  # ten mask logits, embeddings A and attention biases
    embeddings_b: list[Tensor]  # ten [1, Q, D]
    embedding_d: Tensor  # [1, Q, D]
    dense: Tensor  # [1, D, gh, gw], CLIP's surgery map
    seen: Seen


@torch.no_grad()
def forward(
    state: State,
    sizes: Sizes,
    image: Tensor,
    text: tuple[Tensor, Tensor],
    out_size: tuple[int, int] | None = None,
) -> Outcome:
    """Segment one image.

    Args:
        state: the released entries; those of the text tower but `logit_scale` may be missing.
        sizes: of the variant.
        image: uint8 or float [3, H, W], RGB, 0..255, already resized.
        text: what `classifier` makes, [C + 1, D], and for each class whether it was trained on, 0 or 1, [C].
        out_size: of the scores; the image's own where it is None.
    """
    return recognise(state, sizes, see(state, sizes, image), text, out_size)


@torch.no_grad()
def see(state: State, sizes: Sizes, image: Tensor) -> Seen:
    """The first half of `forward`, which knows no classes."""
    root = Part(state)
    image_clip, image_sam = network_inputs(image.to(root["backbone.pos_embed"]), sizes)
    clip = clip_trunk(root.at("clip_visual_extractor"), sizes, image_clip)
    sam = sam_maps(root.at("backbone"), sizes, image_sam)
    fuse(root.at("sem_seg_head.clip_fusion_layers"), sizes, sam, clip)
    features, levels = pixel_decoder(root.at("sem_seg_head.pixel_decoder"), sizes, sam)
    return Seen(clip, sam, features, levels, size_of(image), size_of(image_sam))


@torch.no_grad()
def recognise(
    state: State,
    sizes: Sizes,
    seen: Seen,
    text: tuple[Tensor, Tensor],
    out_size: tuple[int, int] | None = None,
) -> Outcome:
    """The second half of `forward`."""
    weights, overlap = text
    root = Part(state)
    scaled = root["ov_classifier.logit_scale"].exp() * weights
    found = mask_decoder(root.at("sem_seg_head.predictor"), sizes, seen.features, seen.levels)
    tails = [clip_tail(root.at("clip_rec_head"), sizes, seen.clip, bias) for bias in found.biases]
    embeddings_b, dense = [embedding for embedding, _ in tails], tails[-1][1]
    # The original compares all ten predictions with the classes, too, and reads the last.
    logits_a, logits_b = ([each @ scaled.T for each in listed] for listed in (found.embeddings, embeddings_b))
    pooled = mask_pool(resize(found.masks[-1], size_of(dense)), dense)
    class_log = ensemble(sizes, (logits_a[-1], logits_b[-1], pooled @ scaled.T), overlap)
    masks = resize(found.masks[-1], seen.padded)[:, :, : seen.size[0], : seen.size[1]]
    masks = resize(masks, out_size or seen.size).sigmoid()
    class_probs = class_log.softmax(-1)[..., :-1]
    scores = torch.einsum("qc,qhw->chw", class_probs[0], masks[0])
    return Outcome(scores, class_probs, found, embeddings_b, pooled, dense, seen)


@torch.no_grad()
def classifier(state: State, sizes: Sizes, tokens: Tensor) -> Tensor:
    """tokens int64 [templates, C, context] → `forward`'s text [C + 1, D]; it depends on no image."""
    return text_classifier(Part(state, "ov_classifier."), sizes, tokens)


def network_inputs(image: Tensor, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """float [3, H, W] → what CLIP and SAM read, [1, 3, h, w]: normalised, then padded with zeros, then resized."""
    padding = (0, -image.shape[2] % DIVISOR, 0, -image.shape[1] % DIVISOR)

    def normalise(colours: tuple[list[float], list[float]]) -> Tensor:
        mean, deviation = (torch.tensor(values).to(image)[:, None, None] for values in colours)
        return F.pad((image - mean) / deviation, padding)[None]

    image_clip, image_sam = normalise(CLIP_COLOURS), normalise(SAM_COLOURS)
    return F.interpolate(image_clip, scale_factor=sizes.clip_scale, mode="bilinear"), image_sam


def fuse(layers: Part, sizes: Sizes, sam: dict[str, Tensor], clip: ClipFeatures) -> None:
    """Add CLIP's maps to SAM's res3, res4 and res5, at their full size."""
    for i, (name, index) in enumerate(zip(("res3", "res4", "res5"), sizes.fused, strict=True)):
        layer = layers.at(str(i))
        mapped = layer.conv("1", channel_norm(layer.at("0"), clip.maps[index]))
        sam[name] = sam[name] + resize(mapped, size_of(sam[name]))


def channel_norm(part: Part, x: Tensor) -> Tensor:
    """Layer norm over the channels of a map [N, C, h, w]."""
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).pow(2).mean(1, keepdim=True)
    return part["weight"][:, None, None] * ((x - mean) / (variance + 1e-6).sqrt()) + part["bias"][:, None, None]


def mask_pool(masks: Tensor, dense: Tensor) -> Tensor:
    """Mean of the dense map inside each mask; zero for an empty mask."""
    inside = masks.sigmoid() > 0.5
    share = inside.to(dense) / (inside.sum((-1, -2), keepdim=True) + 1e-8)
    return torch.einsum("bnhw,bchw->bnc", share, dense)


def ensemble(sizes: Sizes, logits: tuple[Tensor, Tensor, Tensor], overlap: Tensor) -> Tensor:
    """Logits of A, B and D [1, Q, C + 1] → log-probabilities of the classes and, last, of no object."""
    alpha, beta, gamma = sizes.ensemble
    a, b, d = (each[..., :-1].softmax(-1) for each in logits)
    known = torch.log(1e-8 + a ** (1 - alpha - gamma) * d**alpha * b**gamma) * overlap
    unknown = torch.log(1e-8 + a ** (1 - beta - gamma) * d**beta * b**gamma) * (1 - overlap)
    nothing = logits[0].softmax(-1)[..., -1:]
    classes = (known + unknown).softmax(-1) * (1 - nothing)
    return torch.log(torch.cat([classes, nothing], dim=-1) + 1e-8)
