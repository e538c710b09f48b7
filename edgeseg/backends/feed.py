"""Checks what goes into an engine against its graph's specification, before an SDK can complain in its own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from edgeseg.errors import BackendError
from edgeseg.schema import GraphSpec, TensorSpec


class Shaped(Protocol):
    """Anything with a complete shape and a numpy dtype."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[np.generic]: ...


def check_feed(graph: GraphSpec, inputs: Mapping[str, Shaped]) -> dict[str, int]:
    """The extent of every dynamic axis in this feed.

    Raises:
        BackendError: a name, dtype or shape is not the graph's, or one axis has two extents.
    """
    names = {spec.name for spec in graph.inputs}
    if names != set(inputs):
        raise _refuse(graph, f"it takes {sorted(names)} and was given {sorted(inputs)}")
    extents: dict[str, int] = {}
    for spec in graph.inputs:
        _check_tensor(graph, spec, inputs[spec.name], extents)
    return extents


def _check_tensor(graph: GraphSpec, spec: TensorSpec, tensor: Shaped, extents: dict[str, int]) -> None:
    if np.dtype(tensor.dtype).name != spec.dtype:
        raise _refuse(graph, f"{spec.name} is {np.dtype(tensor.dtype).name}, not {spec.dtype}")
    shape = tuple(tensor.shape)
    if len(shape) != len(spec.shape):
        raise _refuse(graph, f"{spec.name} has the shape {shape}, not {spec.shape}")
    for axis, extent in zip(spec.shape, shape, strict=True):
        wanted = extents.setdefault(axis, extent) if isinstance(axis, str) else axis
        if extent != wanted:
            raise _refuse(graph, f"{spec.name} has the shape {shape}, not {spec.shape} with {extents}")


def _refuse(graph: GraphSpec, found: str) -> BackendError:
    todo = "give it tensors of its specification (`edgeseg inspect` lists them)"
    return BackendError(f"run the graph {graph.name}", found, todo)
