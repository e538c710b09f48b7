"""CAT-Seg's cost aggregation (Cho et al., CVPR 2024): Swin blocks over space, linear attention over classes, a decoder.

Parameters carry the names of the published files. Rewritten exactly:

- q and k of a concatenation [x, guidance] are two products, and the guidance's is computed once for all classes; so is
  the guidance's part of the decoder's first convolutions.
- The authors pad the class axis to 256 with a learned token. All pads are equal, so their share of the attention's sums
  is one product times their number, and the cost is linear in the classes.
- What treats every class for itself (embedding, Swin blocks, decoder) runs over `parts` shares of the classes, one
  after the other, and the class attention over `parts` shares of the positions, so that the largest activations exist
  for one share at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .fixed import Fixed
from .layers import to_image, to_tokens, unit
from .swin import GuidedAttention, SwinConfig, SwinPair

Size = tuple[int, int]


@dataclass(frozen=True)
class AggregationConfig:
    """Sizes of the aggregation.

    Attributes:
        embedding: D of image features and text.
        swin: of the spatial blocks, whose width and heads the class layers share. `class_hidden`: of their MLPs.
        layers: pairs of spatial blocks and a class layer. `prompts`: cost channels per class.
        text_guidance: width of the projected text.
        early, late: channels of the two guidance maps.
        decoder: channels after each decoder stage. `decoder_guidance`: channels of the projected maps.
        pad_length: the class axis is padded to it. `pooling`: of the grid in front of the class attention.
    """

    embedding: int = 512
    swin: SwinConfig = field(default_factory=SwinConfig)
    class_hidden: int = 512
    layers: int = 2
    prompts: int = 1
    text_guidance: int = 128
    early: int = 256
    late: int = 128
    decoder: tuple[int, int] = (64, 32)
    decoder_guidance: tuple[int, int] = (32, 16)
    pad_length: int = 256
    pooling: int = 1


class Aggregation(Fixed):
    """features (B, L, D), guidance maps (B, ·, 2h, 2w) and (B, ·, 4h, 4w), text (B, S, P, D) → logits (B, S, 4h, 4w).

    Text rows are unit vectors. Views run one after the other: together they would need B times the memory. Where
    `guide` (B, L, D) is given, it stands for the features in the guidance of the Swin blocks.

    Attributes:
        parts: shares of the classes, and of the positions, that run one after the other.
    """

    def __init__(self, config: AggregationConfig) -> None:
        super().__init__()
        self.config, self.parts = config, 1
        self.conv1 = nn.Conv2d(config.prompts, config.swin.width, kernel_size=7, padding=3)
        self.layers = nn.ModuleList(AggregationLayer(config) for _ in range(config.layers))
        self.guidance_projection = nn.Sequential(_conv3(config.embedding, config.swin.guidance), nn.ReLU())
        self.text_guidance_projection = nn.Sequential(nn.Linear(config.embedding, config.text_guidance), nn.ReLU())
        maps = zip((config.early, config.late), config.decoder_guidance, strict=True)
        self.decoder_guidance_projection = nn.ModuleList(nn.Sequential(_conv3(*pair), nn.ReLU()) for pair in maps)
        self.decoder1 = DecoderStage(config.swin.width, config.decoder[0], config.decoder_guidance[0])
        self.decoder2 = DecoderStage(config.decoder[0], config.decoder[1], config.decoder_guidance[1])
        self.head = _conv3(config.decoder[1], 1)

    def forward(
        self, features: Tensor, early: Tensor, late: Tensor, text: Tensor, guide: Tensor | None = None
    ) -> Tensor:
        size = (self.config.swin.grid, self.config.swin.grid)
        appearance = to_tokens(self.guidance_projection(to_image(features if guide is None else guide, size)))
        named = self.text_guidance_projection(unit(text.mean(dim=2)))
        maps = [project(g) for project, g in zip(self.decoder_guidance_projection, (early, late), strict=True)]
        maps = [stage.guide(g) for stage, g in zip((self.decoder1, self.decoder2), maps, strict=True)]
        image, views = unit(features), []
        for i in range(int(features.shape[0])):
            one = slice(i, i + 1)
            guides = appearance[one], named[i], (maps[0][one], maps[1][one])
            views.append(self._view(image[i], text[i], *guides))
        return torch.stack(views)

    def _view(
        self, image: Tensor, text: Tensor, appearance: Tensor, named: Tensor, maps: tuple[Tensor, Tensor]
    ) -> Tensor:
        """One view: image (L, D), text (S, P, D), appearance (1, L, ·), named (S, ·) → logits (S, 4h, 4w)."""
        size = (self.config.swin.grid, self.config.swin.grid)
        count = named.shape[0]
        shares = Shares(count, self.parts)
        layers: Any = self.layers
        first, *rest = layers
        guide = first.swin_block.guide(appearance)

        def embed(rows: Tensor) -> Tensor:
            cost = (text.index_select(0, rows) @ image.t()).reshape(-1, self.config.prompts, *size)
            tokens = self.conv1(cost).reshape(-1, self.config.swin.width, size[0] * size[1]).transpose(1, 2)
            return first.swin_block(tokens, guide)

        x = first.attention(shares.apply(embed), named, self.parts)
        for layer in rest:
            guide = layer.swin_block.guide(appearance)
            x = layer.attention(shares.apply(_Picked(layer.swin_block, x, guide)), named, self.parts)

        def decode(rows: Tensor) -> Tensor:
            y = x.index_select(0, rows).transpose(1, 2).reshape(-1, self.config.swin.width, *size)
            y = self.decoder1(y, maps[0])
            return self.head(self.decoder2(y, maps[1]))[:, 0]

        return shares.apply(decode)


class _Picked:
    """A Swin block on the chosen rows of x."""

    def __init__(self, block: nn.Module, x: Tensor, guide: tuple[Tensor, ...]) -> None:
        self.block, self.x, self.guide = block, x, guide

    def __call__(self, rows: Tensor) -> Tensor:
        made: Tensor = self.block(self.x.index_select(0, rows), self.guide)
        return made


class Shares:
    """`count` classes in `parts` shares of one length; the last repeat the last class, and what that gives is cut off.

    Every share has at least one class however few there are, so no tensor is ever empty.
    """

    def __init__(self, count: int, parts: int) -> None:
        self.count, self.parts = count, parts
        self.length = (count + parts - 1) // parts

    def apply(self, run: Callable[[Tensor], Tensor]) -> Tensor:
        """`run` gets the class numbers of a share, and gives something per class; all of it in the classes' order."""
        rows = torch.arange(self.length * self.parts).clamp(max=self.count - 1)
        if self.parts == 1:
            return run(rows)
        made = [run(rows[i * self.length : (i + 1) * self.length]) for i in range(self.parts)]
        return torch.cat(made)[: self.count]


class AggregationLayer(nn.Module):
    """Swin blocks over space, then linear attention over the classes."""

    def __init__(self, config: AggregationConfig) -> None:
        super().__init__()
        self.swin_block = SwinPair(config.swin)
        self.attention = ClassLayer(config)


class ClassLayer(Fixed):
    """Linear attention over the classes at each position, under the guidance of the text: (S, L, C) → (S, L, C)."""

    def __init__(self, config: AggregationConfig) -> None:
        super().__init__()
        self.config, width = config, config.swin.width
        self.padding_tokens = nn.Parameter(torch.zeros(1, 1, width))
        self.padding_guidance = nn.Parameter(torch.zeros(1, 1, config.text_guidance))
        self.attention = ClassAttention(width, config.text_guidance, config.swin.heads)
        self.MLP = nn.Sequential(
            nn.Linear(width, config.class_hidden), nn.ReLU(), nn.Linear(config.class_hidden, width)
        )
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, named: Tensor, parts: int) -> Tensor:
        size, pool = (self.config.swin.grid, self.config.swin.grid), self.config.pooling
        y = x if pool == 1 else to_tokens(F.avg_pool2d(to_image(x, size), pool))
        guide = self.attention.guide(named)
        # The mean instead of the sum keeps half precision in range; what is divided out is the same.
        scale, pads = 1.0 / self.config.pad_length, self.config.pad_length - named.shape[0]
        pad = self.derive("pad", self._pad) * (pads * scale)
        step = -(-int(y.shape[1]) // parts)
        pieces = [y[:, start : start + step] for start in range(0, int(y.shape[1]), step)]
        made = torch.cat([self._attended(piece, guide, pad, scale) for piece in pieces], dim=1)
        if pool == 1:
            return x + made
        pooled = to_image(made, (size[0] // pool, size[1] // pool))
        return x + to_tokens(F.interpolate(pooled, size=size, mode="bilinear", align_corners=True))

    def _attended(self, y: Tensor, guide: tuple[Tensor, Tensor], pad: Tensor, scale: float) -> Tensor:
        y = y + self.attention(self.norm1(y), guide, pad, scale)
        return y + self.MLP(self.norm2(y))

    def _pad(self) -> Tensor:
        return self.attention.pad(self.norm1(self.padding_tokens[0]), self.padding_guidance[0])


class ClassAttention(GuidedAttention):
    """out_s = q_s (Σ k vᵀ) / q_s Σ k over classes and pads; q and k are elu + 1 (Katharopoulos et al. 2020)."""

    def __init__(self, width: int, guidance: int, heads: int) -> None:
        super().__init__(width, guidance, 1.0)
        self.heads = heads

    def pad(self, token: Tensor, guidance: Tensor) -> Tensor:
        """What one pad, of token (1, C) and guidance (1, G), adds to the sums: (1, h, d, d + 1)."""
        k = self._heads(F.elu(self.keys(token, "k") + self.guide(guidance)[1]) + 1)
        v = self._heads(self.v(token))
        return k.transpose(-2, -1) @ torch.cat((v, torch.ones_like(v[..., :1])), dim=-1)

    def forward(self, x: Tensor, guide: tuple[Tensor, Tensor], pad: Tensor, scale: float) -> Tensor:
        """X (S, L, C), guide two (S, C), what all pads add, times `scale`, which divides out → (S, L, C)."""
        length, width = int(x.shape[1]), int(x.shape[2])
        q, k = (F.elu(self.keys(x, name) + g[:, None]) + 1 for name, g in zip("qk", guide, strict=True))
        q, k, v = (
            y.reshape(-1, length, self.heads, width // self.heads).permute(1, 2, 0, 3) for y in (q, k, self.v(x))
        )
        k = k * scale
        products = k.transpose(-2, -1) @ v + pad[..., :-1]
        sums = k.sum(dim=2, keepdim=True).transpose(-2, -1) + pad[..., -1:]
        y = (q @ products) / (q @ sums + 1e-6 * scale)
        return y.permute(2, 0, 1, 3).reshape(-1, length, width)

    def _heads(self, x: Tensor) -> Tensor:
        """(1, C) → (1, h, 1, d)."""
        return x.reshape(1, self.heads, 1, -1)


class DecoderStage(nn.Module):
    """Doubles the resolution: (n, inputs, h, w) and projected guidance (1, guidance, 2h, 2w) → (n, outputs, 2h, 2w)."""

    def __init__(self, inputs: int, outputs: int, guidance: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, inputs - guidance, kernel_size=2, stride=2)
        self.conv = DoubleConv(inputs, outputs)

    def guide(self, guidance: Tensor) -> Tensor:
        """The guidance's share of the first convolution, which is the same for every class."""
        return self.conv.guide(guidance)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        return self.conv(self.up(x), guide)


class DoubleConv(Fixed):
    """Twice: 3x3 convolution, group norm, ReLU; a group has 16 channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.GroupNorm(outputs // 16, outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.GroupNorm(outputs // 16, outputs),
            nn.ReLU(),
        )

    def guide(self, guidance: Tensor) -> Tensor:
        """See `DecoderStage.guide`; the guidance's channels are the last ones."""
        weight = self.derive("guided", lambda: self._weight()[:, -guidance.shape[1] :])
        return F.conv2d(guidance, weight, padding=1)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        weight = self.derive("own", lambda: self._weight()[:, : x.shape[1]])
        y = F.conv2d(x, weight, padding=1) + guide
        return self.double_conv[1:](y)

    def _weight(self) -> Tensor:
        first: nn.Conv2d = self.double_conv[0]  # type: ignore[assignment]
        return first.weight


def _conv3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
