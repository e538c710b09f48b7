"""Writes graphs into a bundle one by one; graphs of one name share one file of weights."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from types import TracebackType

from torch import Tensor

from edgeseg.bundle.edit import BundleEdit

from .graphs import GraphPlan
from .onnx_file import WeightFile, export_graph, graph_file_name

FOLDER = "graphs/fp32"


class GraphWriter:
    """A context manager; the weight files are whole when it ends."""

    def __init__(self, edit: BundleEdit) -> None:
        self._edit = edit
        self._weights: dict[str, WeightFile] = {}

    def __enter__(self) -> GraphWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for file in self._weights.values():
            file.close()

    def write(self, plan: GraphPlan, example: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Export one graph; returns torch's outputs for the example, by name."""
        file = self._edit.stage(f"{FOLDER}/{graph_file_name(plan.name, plan.canvas)}")
        if plan.name not in self._weights:
            self._weights[plan.name] = WeightFile(self._edit.stage(f"{FOLDER}/{plan.name}.bin"))
        spec, outputs = export_graph(plan, example, file, self._weights[plan.name], FOLDER)
        self._edit.add_graph(spec)
        gc.collect()
        return outputs


def run(plan: GraphPlan, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Torch's outputs of a graph, by name."""
    outputs = plan.network(*(values[name] for name in plan.inputs))
    return dict(zip(plan.outputs, outputs if isinstance(outputs, tuple) else (outputs,), strict=True))
