"""Splitting into heads where both batch and length may vary in the graph.

`reshape` would compute its shape there, a dozen nodes each time. ONNX can say it in one: a 0 in a Reshape's shape keeps
the axis, which torch has no word for.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, C) → (B, h, N, C/h)."""
    made: Tensor = _Split.apply(x, heads)
    return made.transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, h, N, d) → (B, N, h*d)."""
    made: Tensor = _Merge.apply(x.transpose(1, 2))
    return made


class _Split(torch.autograd.Function):
    """(B, N, C) → (B, N, h, C/h)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, heads: int) -> Tensor:
        return x.unflatten(-1, (heads, -1))

    @staticmethod
    def symbolic(g: Any, x: Any, heads: int) -> Any:
        """The node it becomes."""
        return g.op("Reshape", x, g.op("Constant", value_t=torch.tensor([0, 0, heads, -1])))


class _Merge(torch.autograd.Function):
    """(B, N, h, d) → (B, N, h*d)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.flatten(2)

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        """The node it becomes."""
        return g.op("Reshape", x, g.op("Constant", value_t=torch.tensor([0, 0, -1])))
