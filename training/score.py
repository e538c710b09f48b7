"""Validation while training runs, in torch. What is published is measured by `edgeseg bench accuracy` on engines."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .data import Frame
from .objective import Objective

CANVAS = 384, 480


def confusion(objective: Objective, frames: list[Frame], text: Tensor, overlap: Tensor) -> Tensor:
    """(C, C) int64, labels by predictions, of images that fit CANVAS, unresized, at their own size."""
    count, device = len(text), objective.text.device
    total = np.zeros(count * count, np.int64)
    for frame in frames:
        height, width = frame.labels.shape
        rgb = torch.zeros(1, 3, *CANVAS)
        rgb[0, :, :height, :width] = torch.from_numpy(frame.rgb.copy()).permute(2, 0, 1)
        with torch.no_grad():
            made = objective.scores(rgb.to(device), (height, width), text.to(device), overlap.to(device))
        predicted = made[0, :, :height, :width].argmax(dim=0).cpu().numpy()
        scored = frame.labels >= 0
        total += np.bincount(frame.labels[scored] * count + predicted[scored], minlength=count * count)
    return torch.from_numpy(total.reshape(count, count))


def ious(matrix: Tensor) -> Tensor:
    """(C,) percent; 0 for a class that is neither labelled nor predicted."""
    right = matrix.diagonal().double()
    return 100 * right / (matrix.sum(0) + matrix.sum(1) - right).clamp(min=1)
