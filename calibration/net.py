"""A graph under change: its nodes in a model without weights, its weights read one by one where they lie."""

from __future__ import annotations

from typing import Any, Protocol

import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from . import graph as graphs
from .weights import INLINE_BYTES, Array


class Reader(Protocol):
    """Whatever gives the array of an initialiser."""

    def read(self, tensor: TensorProto) -> Array:
        """The tensor as an array."""
        ...


class Net:
    """A model, its constants as initialisers and every node named, and the weights that replace some of its own.

    Args:
        model: changed in place; it need not hold its weights.
        reader: reads them.
        name: for messages.
        within: a pattern in the names of the nodes that may be quantized.

    Raises:
        BuildError: the graph holds graphs of its own.
    """

    def __init__(self, model: onnx.ModelProto, reader: Reader, name: str, within: str = "") -> None:
        graphs.refuse_nested(model, name)
        graphs.constants_to_initializers(model.graph)
        graphs.name_nodes(model.graph)
        self.model, self.name, self.within = model, name, within
        self._reader = reader
        self._changed: dict[str, Array] = {}

    @property
    def graph(self) -> onnx.GraphProto:
        """The nodes, inputs, outputs and initialisers."""
        return self.model.graph

    def read(self, tensor: TensorProto) -> Array:
        """An initialiser as an array: as it was changed, else as the model has it."""
        changed = self._changed.get(tensor.name)
        return self._reader.read(tensor) if changed is None else changed

    def weight(self, name: str) -> npt.NDArray[Any]:
        """The initialiser of that name as an array."""
        return self.read(next(tensor for tensor in self.graph.initializer if tensor.name == name))

    def set_weight(self, name: str, array: Array) -> str:
        """Replace or add an initialiser; returns its name."""
        tensor = _described(name, array)
        for place, known in enumerate(self.graph.initializer):
            if known.name == name:
                self.graph.initializer[place].CopyFrom(tensor)
                break
        else:
            self.graph.initializer.append(tensor)
        self._changed[name] = array
        return name

    def drop_unread_weights(self) -> None:
        """Remove the initialisers that no node reads."""
        read = {name for node in self.graph.node for name in node.input}
        kept = [tensor for tensor in self.graph.initializer if tensor.name in read]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)


def _described(name: str, array: Array) -> TensorProto:
    """An initialiser that says type and shape; only a small one holds its values, as shape inference needs them."""
    if array.nbytes <= INLINE_BYTES:
        return numpy_helper.from_array(array, name)
    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    return TensorProto(name=name, data_type=kind, dims=array.shape, data_location=TensorProto.EXTERNAL)
