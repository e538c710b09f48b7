"""What a TensorRT engine is made of: reads the layers from the build log or from the engine inspector.

Two sources tell the same story. The engine inspector needs the device; the verbose build log of TensorRT-RTX ends with
the same list and so works without a GPU. Of the inspector's JSON both formats are read, that of TensorRT 8.6 to 10
("Bindings", "Format/Datatype") and that of 11 ("I/O Tensors", "DataType").
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

FUSED_ATTENTION = "_gemm_mha"  # Myelin's name for one kernel that is MatMul, Softmax and MatMul
ATTENTION = "attention"  # kind of a layer that is one attention by its operator, not by its name
DUMP_START = "Layers:"
_BOOKKEEPING = frozenset({"signal", "wait"})  # stream synchronisation, no arithmetic


@dataclass(frozen=True)
class Layer:
    """One layer of an engine.

    Attributes:
        name: as the compiler calls it. `kind`: "gemm", "kgen", "Convolution"..., empty if the engine does not tell.
        inputs, outputs: element types as the compiler writes them ("Half", "Float", "Int8"), in order.
        nodes: names of the ONNX nodes that went into it, where the engine tells.
        weights: element types of the constants that are tables or larger, in order.
    """

    name: str
    kind: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()


def parse_dump(text: str) -> list[Layer]:
    """The layers in a verbose log message that starts with "Layers:"."""
    return [_dump_layer(line) for line in text.splitlines() if line.startswith("Name: ")]  # tensors are indented


def _dump_layer(line: str) -> Layer:
    head, _, tail = line.partition(", Inputs: [")
    name, _, kind = head.removeprefix("Name: ").partition(", LayerType: ")
    inputs, _, tail = tail.partition(", Outputs: [")
    outputs, _, tail = tail.partition(", TacticName: ")
    inputs, _, constants = inputs.partition(", Constants: [")
    return Layer(name, kind, _datatypes(inputs), _datatypes(outputs), _nodes(tail), _tables(constants))


def _datatypes(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"Datatype: (\w+)", text))


def _tables(text: str) -> tuple[str, ...]:
    found = re.findall(r"Dimensions: \[([\d,]*)\].*?Datatype: (\w+)", text)
    return tuple(kind for extents, kind in found if _is_table([int(extent) for extent in extents.split(",") if extent]))


def _is_table(extents: list[int]) -> bool:
    """Whether a constant can be a weight: a scale per channel is one row, whatever its rank."""
    return sum(extent > 1 for extent in extents) > 1


def _nodes(metadata: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\[ONNX Layer: ([^\]]+)\]", metadata))


def parse_inspector(text: str) -> list[Layer]:
    """The layers in `EngineInspector.get_engine_information(JSON)`.

    An engine built without DETAILED verbosity lists bare names; those come back without kind and types.
    """
    return [_inspector_layer(item) for item in json.loads(text)["Layers"]]


def _inspector_layer(item: Any) -> Layer:
    if isinstance(item, str):
        return Layer(item)
    return Layer(
        item.get("Name", ""),
        item.get("LayerType", ""),
        tuple(_tensor_type(tensor) for tensor in item.get("Inputs", ())),
        tuple(_tensor_type(tensor) for tensor in item.get("Outputs", ())),
        _nodes(item.get("Metadata", "")),
        _inspector_weights(item),
    )


def _inspector_weights(item: dict[str, Any]) -> tuple[str, ...]:
    """Types of tables among "Constants" (layers of Myelin), else that of "Weights" (convolutions, Gemm)."""
    constants = [one for one in item.get("Constants", ()) if _is_table(one.get("Dimensions", []))]
    weights = item.get("Weights")
    kinds = [_tensor_type(one) for one in constants]
    return tuple(kinds or ([str(weights["Type"])] if isinstance(weights, dict) and "Type" in weights else []))


def _tensor_type(tensor: dict[str, Any]) -> str:
    """The element type of an inspector's tensor; TensorRT 8.6 and 10 hide it in the format's description."""
    for key in ("DataType", "Datatype"):
        if key in tensor:
            return str(tensor[key])
    words = re.search(r"FP32|FP16|BF16|Int8|Int32|Int64|Bool|FP8|Half|Float", tensor.get("Format/Datatype", ""))
    return {"FP32": "Float", "FP16": "Half"}.get(words[0], words[0]) if words else ""


def is_attention(layer: Layer) -> bool:
    """Whether a layer is a whole attention: the compiler made it into one kernel."""
    return FUSED_ATTENTION in layer.name or layer.kind == ATTENTION


def fused_attentions(layers: list[Layer]) -> int:
    """The number of attentions that the compiler made into one kernel."""
    return sum(map(is_attention, layers))


def summary(layers: list[Layer]) -> dict[str, Any]:
    """Counts for a report: layers, fused attentions, layers by kind, layers by the type of their first output."""
    work = [layer for layer in layers if layer.kind not in _BOOKKEEPING]
    return {
        "layers": len(work),
        "fused_attentions": fused_attentions(work),
        "kinds": dict(sorted(Counter(layer.kind for layer in work).items())),
        "output_types": dict(sorted(Counter(layer.outputs[0] for layer in work if layer.outputs).items())),
    }
