"""Modules whose derived tensors can be fixed before export.

The networks keep their parameters under the published names, so that a checkpoint loads and a training script trains
them as they are. What the exported graph holds is derived from those parameters: q, k and v apart, scales folded in,
positions resized to one canvas. `Fixed.derive` computes such a tensor when the network is trained or checked, records
it during one forward pass under `fixing`, and hands the recorded buffer out afterwards, so that tracing sees plain
weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Fixed(nn.Module):
    """A module with derived tensors."""

    _recording = False
    _fixed = False

    def derive(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """`make()`, or what it gave when this module was fixed; `name` is unique in the module and names the weight."""
        key = f"fixed_{name}"
        if self._fixed:
            return self.get_buffer(key)
        value = make()
        if self._recording:
            self.register_buffer(key, value.detach().contiguous(), persistent=False)
        return value


class Project(nn.Module):
    """A matrix product under a name of its own: (..., n) @ (n, m) [+ (m,)], with weights that the caller derives."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        y = x @ weight
        return y if bias is None else y + bias


def _states(network: nn.Module) -> Iterator[Fixed]:
    return (module for module in network.modules() if isinstance(module, Fixed))


@contextmanager
def fixing(network: nn.Module, *example: Tensor) -> Iterator[Any]:
    """Fix every derived tensor of `network` at the shapes of `example`; on leaving, the network is as before.

    Yields what the network makes of the example.
    """
    modules = list(_states(network))
    try:
        for module in modules:
            module._recording = True
        with torch.no_grad():
            outputs = network(*example)
        for module in modules:
            module._recording, module._fixed = False, True
        yield outputs
    finally:
        for module in modules:
            module._recording = module._fixed = False
            for key in [key for key in module._buffers if key.startswith("fixed_")]:
                del module._buffers[key]
