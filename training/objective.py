"""What a run trains: a model, the class embeddings it is trained against, and the loss of a batch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgeseg.export.ebseg import CLIP_MEAN, CLIP_STD, SAM_MEAN, SAM_STD

Size = tuple[int, int]


class Objective(nn.Module):
    """`forward(rgb, labels, valid)` is the loss of a batch.

    rgb: (B, 3, H, W) float, 0 to 255; the canvas, of which the upper left `valid` (H, W) holds the image.
    labels: (B, H, W) int, class indices; what lies outside 0..C-1 is not scored.

    Args:
        model: to be trained.
        text: (C, D) unit embeddings of the trained classes.
        weights: (C,) weight of each class in the loss.
    """

    model: nn.Module
    text: Tensor
    weights: Tensor
    sam_mean: Tensor
    sam_std: Tensor
    clip_mean: Tensor
    clip_std: Tensor

    def __init__(self, model: nn.Module, text: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.model = model
        for name, value in (("text", text), ("weights", weights)):
            self.register_buffer(name, value, persistent=False)
        for name, mean, std in (("sam", SAM_MEAN, SAM_STD), ("clip", CLIP_MEAN, CLIP_STD)):
            self.register_buffer(f"{name}_mean", torch.tensor(mean)[:, None, None], persistent=False)
            self.register_buffer(f"{name}_std", torch.tensor(std)[:, None, None], persistent=False)

    def scores(self, rgb: Tensor, valid: Size, text: Tensor, overlap: Tensor) -> Tensor:
        """(B, C, H, W) for any classes: `text` (C, D) unit embeddings, `overlap` (C,) 1 where a class was trained."""
        raise NotImplementedError

    def checkpoint(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The model's tensors, of its own names, under those of a checkpoint file."""
        return dict(state)

    def normalised(self, rgb: Tensor, valid: Size) -> tuple[Tensor, Tensor]:
        """SAM's and CLIP's view of the canvas, zero outside the image."""
        inside = torch.zeros(rgb.shape[-2:], device=rgb.device)
        inside[: valid[0], : valid[1]] = 1
        return (rgb - self.sam_mean) / self.sam_std * inside, (rgb - self.clip_mean) / self.clip_std * inside
