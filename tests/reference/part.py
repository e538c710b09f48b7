"""A module's share of a flat state dict, and the layers that read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor


class Part:
    """The entries of `state` whose names begin with `prefix`, asked for by the rest of their names."""

    def __init__(self, state: Mapping[str, Tensor], prefix: str = "") -> None:
        self.state, self.prefix = state, prefix

    def __getitem__(self, name: str) -> Tensor:
        return self.state[self.prefix + name]

    def at(self, name: str) -> Part:
        return Part(self.state, f"{self.prefix}{name}.")

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self[f"{name}.weight"], self[f"{name}.bias"])

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        return F.conv2d(x, self[f"{name}.weight"], self[f"{name}.bias"], stride)

    def norm(self, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self[f"{name}.weight"], self[f"{name}.bias"], eps)

    def group_norm(self, name: str, x: Tensor) -> Tensor:
        return F.group_norm(x, 32, self[f"{name}.weight"], self[f"{name}.bias"])

    def mlp(self, x: Tensor) -> Tensor:
        """Three linear layers with ReLU between them."""
        for i in range(2):
            x = F.relu(self.linear(f"layers.{i}", x))
        return self.linear("layers.2", x)

    def attention(
        self, qkv: tuple[Tensor, Tensor, Tensor], heads: int, mask: Tensor | None = None, need_weights: bool = True
    ) -> Tensor:
        """torch's own multi-head attention on [tokens, N, C]; where weights are needed, it is not fused."""
        projections = self["in_proj_weight"], self["in_proj_bias"]
        outputs = self["out_proj.weight"], self["out_proj.bias"]
        sizes = qkv[0].shape[-1], heads
        options = {"attn_mask": mask, "need_weights": need_weights, "training": False}
        call: Callable[..., tuple[Tensor, Tensor | None]] = F.multi_head_attention_forward
        return call(*qkv, *sizes, *projections, None, None, False, 0.0, *outputs, **options)[0]


def quick_gelu(x: Tensor) -> Tensor:
    return x * (1.702 * x).sigmoid()


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, pixel centres at half integers."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
