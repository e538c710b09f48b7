"""What a family says of a graph before it is exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from edgeseg.schema import Size


@dataclass(frozen=True)
class GraphPlan:
    """A network and the names of what goes in and comes out; the names wire the chain.

    Attributes:
        name: of the graph. `canvas`: the image size it is for, None if it fits any.
        dynamic: tensor name → {axis: name of the dynamic axis}; every other axis is fixed at the example's extent.
        axes: name of a dynamic axis → (smallest, usual, largest) extent.
        unsteady: outputs that rounding can change altogether; no reference is kept of them.
    """

    name: str
    network: nn.Module
    canvas: Size | None
    inputs: list[str]
    outputs: list[str]
    dynamic: dict[str, dict[int, str]] = field(default_factory=dict)
    axes: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    unsteady: tuple[str, ...] = ()

    def run(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Torch's outputs, by name."""
        outputs = self.network(*(values[name] for name in self.inputs))
        return dict(zip(self.outputs, outputs if isinstance(outputs, tuple) else (outputs,), strict=True))
