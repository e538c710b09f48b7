"""Blocks of a graph in fp32: a block is put back as it is in the fp32 master, weights and all.

The nodes of a transformer's block are known by their names, which begin with a numbered path ("/blocks.3/"). Quantising
keeps the names of nodes and of the tensors between blocks, so a block of the master fits where its copy was. What the
blocks read and no block made, such as an image's patches, is treated as one block more, the stem.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import onnx
from onnx import defs, helper

from .surgery import BFLOAT, FLOAT, HALF, Files, loaded, set_nodes, types_of

STEM = "(stem)"
_BLOCK = re.compile(r"(.*?\.\d+)(/|$)")


def block_of(name: str) -> str | None:
    """The block of a node: its path up to the first numbered part, "/blocks.3/attn/q/MatMul" → "/blocks.3"."""
    match = _BLOCK.match(name)
    return match[1] if match else None


def blocks_of(model: onnx.ModelProto) -> dict[str, str]:
    """First output of a node → its block or the stem; what is behind the blocks is in neither."""
    found = {node.output[0]: block for node in model.graph.node if (block := block_of(node.name)) is not None}
    needed = {name for node in model.graph.node if node.output[0] in found for name in node.input}
    early, late = [], set[str]()
    for node in model.graph.node:
        if node.output[0] in found or late.intersection(node.input):
            late.update(node.output)
        elif node.op_type != "Constant":
            early.append(node)
    for node in reversed(early):
        if needed.intersection(node.output):
            needed.update(node.input)
            found[node.output[0]] = STEM
    return found


def boundaries(model: onnx.ModelProto) -> dict[str, str]:
    """Block → the tensor that leaves it last, in the order of the graph; the stem is among them."""
    results, blocks = {value.name for value in model.graph.output}, blocks_of(model)
    readers: dict[str, set[str | None]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(blocks.get(node.output[0]))
    found: dict[str, str] = {}
    for node in model.graph.node:
        block = blocks.get(node.output[0])
        for name in node.output if block else ():
            if name in results or readers.get(name, {block}) - {block}:
                found[str(block)] = name
    return found


def lift(
    model: onnx.ModelProto, master: onnx.ModelProto, files: Files, chosen: Callable[[onnx.NodeProto], bool]
) -> int:
    """Put the chosen nodes of the fp32 master, weights and all, in the place of what computes their results.

    So nothing of a quantised or damaged block is left. The tensors that go in and out must have the names that they
    have in the master.

    Returns:
        how many nodes were put in; 0, and nothing has changed, if a tensor is missing, or if an operator is not the
        same in the opsets of the two.
    """
    region = [node for node in master.graph.node if chosen(node)]
    constants = {name: node for node in master.graph.node if node.op_type == "Constant" for name in node.output}
    region = _with_constants(region, constants)
    results = _leaving(master, region)
    made = {name for node in region for name in node.output}
    weights = {tensor.name: tensor for tensor in master.graph.initializer}
    going_in = {name for node in region for name in node.input if name and name not in made | set(weights)}
    types = types_of(model)
    if not region or not (going_in | results) <= set(types) or not all(map(_same_operator(model), region)):
        return 0
    lifted = {name: f"{name}_lifted" for name in made | {n for n in going_in if types[n] in (HALF, BFLOAT)}}
    nodes = [_cast(n, lifted[n], FLOAT) for n in sorted(going_in) if n in lifted]
    nodes += [_renamed(node, lifted, set(weights)) for node in region]
    _replace_results(model, results, lifted, types, nodes)
    read = {name for node in region for name in node.input if name in weights}
    for name in sorted(read):
        tensor = loaded(weights[name], files)
        tensor.name = f"{name}_lifted"
        model.graph.initializer.append(tensor)
    prune(model)
    return len(region)


def _with_constants(region: list[onnx.NodeProto], constants: Mapping[str, onnx.NodeProto]) -> list[onnx.NodeProto]:
    present = {name for node in region for name in node.output}
    needed = dict.fromkeys(name for node in region for name in node.input if name in constants and name not in present)
    return [*(constants[name] for name in needed), *region]


def _leaving(model: onnx.ModelProto, region: list[onnx.NodeProto]) -> set[str]:
    """The tensors that a region makes and something else reads."""
    inside = {name for node in region for name in node.output}
    read = {name for node in model.graph.node if node.output[0] not in inside for name in node.input}
    return inside & (read | {value.name for value in model.graph.output})


def _same_operator(model: onnx.ModelProto) -> Callable[[onnx.NodeProto], bool]:
    version = next((opset.version for opset in model.opset_import if opset.domain == ""), 0)

    def same(node: onnx.NodeProto) -> bool:
        known = defs.get_schema(node.op_type, version, node.domain).attributes
        return all(attribute.name in known for attribute in node.attribute)

    return same


def _renamed(node: onnx.NodeProto, lifted: Mapping[str, str], weights: set[str]) -> onnx.NodeProto:
    copy: onnx.NodeProto = onnx.NodeProto.FromString(node.SerializeToString())
    copy.input[:] = [f"{name}_lifted" if name in weights else lifted.get(name, name) for name in node.input]
    copy.output[:] = [lifted[name] for name in node.output]
    return copy


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], f"{target}_cast", to=kind)


def _replace_results(
    model: onnx.ModelProto,
    results: set[str],
    lifted: Mapping[str, str],
    types: Mapping[str, int],
    nodes: list[onnx.NodeProto],
) -> None:
    """Let what read the old results read the lifted ones, in the type that it expects.

    A graph's fp32 output that is a Cast of a narrower tensor has that tensor as a second result: others read it.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    outputs = {value.name for value in model.graph.output}
    wanted = {name: lifted[name] for name in results}
    for name in results & outputs:
        maker = makers[name]
        if maker.op_type == "Cast" and types.get(maker.input[0]) in (HALF, BFLOAT):
            wanted[maker.input[0]] = lifted[name]
    nodes += [_cast(source, name, types[name]) for name, source in sorted(wanted.items())]
    kept = [_without(node, set(wanted)) for node in model.graph.node]
    set_nodes(model, _sorted([*nodes, *kept], {tensor.name for tensor in model.graph.initializer}))


def _without(node: onnx.NodeProto, names: set[str]) -> onnx.NodeProto:
    """The node, whose results of these names nobody reads any more."""
    node.output[:] = [f"{name}_replaced" if name in names else name for name in node.output]
    return node


def _sorted(nodes: Iterable[onnx.NodeProto], known: set[str]) -> list[onnx.NodeProto]:
    """The nodes in an order in which each comes after what it reads."""
    left = list(nodes)
    makers = {name: index for index, node in enumerate(left) for name in node.output}
    order: list[onnx.NodeProto] = []
    done: set[int] = set()
    for start in range(len(left)):
        stack = [start]
        while stack:
            index = stack[-1]
            before = [makers[n] for n in left[index].input if n in makers and makers[n] not in done]
            if index in done or not before:
                stack.pop()
                if index not in done:
                    done.add(index)
                    order.append(left[index])
            else:
                stack += before
    return order


def prune(model: onnx.ModelProto) -> None:
    """Drop the nodes and weights that no output depends on."""
    wanted = {value.name for value in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if any(name in wanted for name in node.output):
            wanted.update(node.input)
            kept.append(node)
    set_nodes(model, kept[::-1])
    weights = [tensor for tensor in model.graph.initializer if tensor.name in wanted]
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)
