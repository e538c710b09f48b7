"""The sizes of EBSeg: the two published variants, and one that a test can afford."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Everything that tells one EBSeg from another; the defaults are EBSeg-B."""

    clip_width: int = 768
    clip_heads: int = 12
    clip_patch: int = 16
    clip_grid: int = 14
    clip_trunk: int = 9
    clip_tail: int = 3
    surgery_start: int = 2
    clip_scale: float = 0.5
    embedding: int = 512
    ensemble: tuple[float, float, float] = (0.09, 0.30, 0.70)  # alpha, beta, gamma
    text_width: int = 512
    text_heads: int = 8
    text_depth: int = 12
    text_context: int = 77
    words: int = 49408
    sam_width: int = 768
    sam_heads: int = 12
    sam_depth: int = 12
    sam_patch: int = 16
    sam_grid: int = 64
    window: int = 14
    taps: tuple[int, ...] = (2, 5, 8, 11)  # SAM's global blocks, whose outputs are read
    width: int = 256  # of the pixel and the mask decoder
    heads: int = 8
    points: int = 4
    encoder_layers: int = 6
    encoder_hidden: int = 1024
    decoder_layers: int = 9
    decoder_hidden: int = 2048
    queries: int = 100
    training_classes: int = 171

    @property
    def fused(self) -> tuple[int, int, int]:
        """After how many CLIP blocks the maps are taken that join SAM's strides 8, 16 and 32."""
        return self.clip_trunk // 3, self.clip_trunk * 2 // 3, self.clip_trunk


BASE = Sizes()
LARGE = Sizes(
    clip_width=1024,
    clip_heads=16,
    clip_patch=14,
    clip_grid=24,
    clip_trunk=18,
    clip_tail=6,
    surgery_start=4,
    clip_scale=0.7,
    embedding=768,
    ensemble=(0.12, 0.40, 0.60),
    text_width=768,
    text_heads=12,
)
TINY = Sizes(
    clip_width=48,
    clip_heads=3,
    clip_grid=4,
    clip_trunk=3,
    clip_tail=2,
    surgery_start=1,
    embedding=40,
    text_width=64,
    text_heads=1,
    text_depth=2,
    text_context=16,
    words=300,
    sam_width=64,
    sam_heads=4,
    sam_depth=5,
    sam_grid=8,
    window=3,
    taps=(1, 2, 3, 4),
    width=64,
    encoder_layers=2,
    encoder_hidden=96,
    decoder_layers=4,
    decoder_hidden=80,
    queries=10,
)
SIZES = {"b": BASE, "l": LARGE, "tiny": TINY}
