"""Soft labels: how much of each cell of a prediction a class covers, and the loss against them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def shares(labels: Tensor, classes: int, like: Tensor) -> Tensor:
    """(B, H, W) labels → (B, classes, h, w) on the cells of `like` (·, ·, h, w).

    What lies outside 0..classes-1 counts for none.
    """
    known = torch.where((labels >= 0) & (labels < classes), labels, classes)
    cell = labels.shape[-2] // like.shape[-2], labels.shape[-1] // like.shape[-1]
    return F.avg_pool2d(F.one_hot(known, classes + 1)[..., :classes].permute(0, 3, 1, 2).float(), cell)


def cross_entropy(log_probabilities: Tensor, covered: Tensor, weights: Tensor) -> Tensor:
    """Of (B, C, h, w) logarithms against shares of that shape, each class weighted by `weights` (C,)."""
    weighted = covered * weights[:, None, None]
    return -(weighted * log_probabilities).sum() / weighted.sum().clamp(min=1.0)
