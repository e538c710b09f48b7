"""A complete bundle with EBSeg's graph names and toys for graphs: two canvases, reference tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from edgeseg.backends import get_backend
from edgeseg.bundle import Bundle, BundleEdit
from edgeseg.chain import Chain, Link
from edgeseg.closeness import sample
from edgeseg.pipelines import get_pipeline
from edgeseg.placement import Placement
from edgeseg.schema import GraphSpec, ImageTransform, Manifest, Size, Source, TensorSpec, size_text
from tests.nets import Net, attention

CANVASES: tuple[Size, ...] = ((32, 32), (32, 48))
WIDTH, QUERIES, EMBEDDING, CLASSES = 64, 5, 16, 3
AXES = {"C": (1, 3, 8), "N": (1, 2, 4), "T": (2, 4, 8)}

Shapes = dict[str, list[Any]]
Toy = tuple[onnx.ModelProto, Shapes, Shapes]


def encoder(image: str, output: str, canvas: Size, seed: int) -> Toy:
    net, (h, w) = Net(seed), (canvas[0] // 8, canvas[1] // 8)
    patches = net.op("Conv", image, net.weight(WIDTH, 3, 8, 8), strides=[8, 8])
    x = net.op("Transpose", net.reshape(patches, 1, WIDTH, h * w), perm=(0, 2, 1))
    x = net.op("Add", x, attention(net, net.norm(x, WIDTH), (h, w), 2, WIDTH))
    sides: tuple[Shapes, Shapes] = ({image: [1, 3, *canvas]}, {output: [1, h * w, WIDTH]})
    return net.model(*sides, {output: x}), *sides


def head(canvas: Size) -> Toy:
    net, (h, w) = Net(3), (canvas[0] // 8, canvas[1] // 8)
    x = net.norm(net.op("Add", "sam_2", "clip_tokens"), WIDTH)
    masks = net.reshape(net.op("Transpose", net.linear(x, WIDTH, QUERIES), perm=(0, 2, 1)), 1, QUERIES, h, w)
    masks = net.op("Resize", masks, "", net.const(np.array([1, 1, 2, 2], np.float32)), mode="linear")
    embedding = net.reshape(net.linear(net.op("ReduceMean", x, axes=[1]), WIDTH, QUERIES * EMBEDDING), 1, QUERIES, -1)
    inputs: Shapes = {"sam_2": [1, h * w, WIDTH], "clip_tokens": [1, h * w, WIDTH]}
    outputs: Shapes = {"mask_logits": [1, QUERIES, 2 * h, 2 * w], "embedding_a": [1, QUERIES, EMBEDDING]}
    return net.model(inputs, outputs, {"mask_logits": masks, "embedding_a": embedding}), inputs, outputs


def clip_tail(canvas: Size) -> Toy:
    net, (h, w) = Net(4), (canvas[0] // 8, canvas[1] // 8)
    weights = net.op(
        "Softmax",
        net.reshape(net.op("MaxPool", "mask_logits", kernel_shape=[2, 2], strides=[2, 2]), 1, QUERIES, h * w),
        axis=-1,
    )
    embedding = net.linear(net.op("MatMul", weights, "clip_tokens"), WIDTH, EMBEDDING)
    inputs: Shapes = {"clip_tokens": [1, h * w, WIDTH], "mask_logits": [1, QUERIES, 2 * h, 2 * w]}
    outputs: Shapes = {"embedding_b": [1, QUERIES, EMBEDDING]}
    return net.model(inputs, outputs, {"embedding_b": embedding}), inputs, outputs


def score() -> Toy:
    net = Net(5)
    logits = net.op("MatMul", net.op("Add", "embedding_a", "embedding_b"), net.op("Transpose", "text", perm=(1, 0)))
    inputs: Shapes = {name: [1, QUERIES, EMBEDDING] for name in ("embedding_a", "embedding_b")}
    inputs |= {"text": ["C", EMBEDDING], "overlap": ["C"]}
    outputs: Shapes = {"class_probs": [1, QUERIES, "C"]}
    probs = net.op("Softmax", net.op("Add", logits, "overlap"), axis=-1)
    return net.model(inputs, outputs, {"class_probs": probs}), inputs, outputs


def text() -> Toy:
    net = Net(6)
    words = net.op(
        "ReduceSum", net.op("Gather", net.weight(100, EMBEDDING), "tokens"), net.const(np.array([1])), keepdims=0
    )
    ends = net.op("Unsqueeze", net.op("Cast", "eot", to=TensorProto.FLOAT), net.const(np.array([1])))
    inputs: Shapes = {"tokens": ["N", "T"], "eot": ["N"]}
    outputs: Shapes = {"text_embedding": ["N", EMBEDDING]}
    net.dtypes = {"tokens": TensorProto.INT32, "eot": TensorProto.INT32}
    return net.model(inputs, outputs, {"text_embedding": net.op("Add", words, ends)}), inputs, outputs


def toys(canvas: Size | None) -> dict[str, Toy]:
    if canvas is None:
        return {"score": score(), "text": text()}
    sam, clip = encoder("image_sam", "sam_2", canvas, 1), encoder("image_clip", "clip_tokens", canvas, 2)
    return {"sam": sam, "clip_trunk": clip, "head": head(canvas), "clip_tail": clip_tail(canvas)}


def make_bundle(path: Path, make: Callable[[Size | None], dict[str, Toy]] = toys, canvases: Any = CANVASES) -> Bundle:
    """An fp32 bundle at `path`; its reference tensors are what onnxruntime makes of its own graphs."""
    images = {name: ImageTransform((120.0,) * 3, (60.0,) * 3) for name in ("image_sam", "image_clip")}
    source = Source("toy.pth", "0" * 64)
    manifest = Manifest(1, "0.1.0", "ebseg", "toy", source, {"divisor": 8}, images, canvases)
    with Bundle.create(path, manifest) as edit:
        for canvas in (*canvases, None):
            for name, toy in make(canvas).items():
                add_graph(edit, name, canvas, toy)
    bundle = Bundle.open(path)
    with bundle.edit() as edit:
        for canvas in canvases:
            add_reference(bundle, edit, canvas)
        add_text_reference(bundle, edit)
    return bundle


def add_graph(edit: BundleEdit, name: str, canvas: Size | None, toy: Toy) -> None:
    model, inputs, outputs = toy
    file = f"graphs/fp32/{name}-{size_text(canvas)}.onnx"
    data = f"graphs/fp32/{name}-{size_text(canvas)}.bin"
    target = edit.stage(file)
    edit.stage(data).touch()
    onnx.save(model, target, save_as_external_data=True, location=Path(data).name, size_threshold=1024)
    axes = {
        axis: AXES[axis] for shape in (*inputs.values(), *outputs.values()) for axis in shape if isinstance(axis, str)
    }
    edit.add_graph(GraphSpec(name, "fp32", canvas, file, (data,), specs(inputs), specs(outputs), axes, 1000))


def specs(shapes: Shapes) -> tuple[TensorSpec, ...]:
    integers = ("tokens", "eot")
    return tuple(TensorSpec(n, "int32" if n in integers else "float32", tuple(s)) for n, s in shapes.items())


def add_reference(bundle: Bundle, edit: BundleEdit, canvas: Size) -> None:
    backend, pipeline = get_backend("onnxruntime"), get_pipeline(bundle.manifest)
    graphs = [bundle.graph(name, "fp32", canvas) for name in pipeline.graphs]
    chain = Chain([Link(graph, backend.open(bundle.graph_files(graph), graph)) for graph in graphs])
    rng = np.random.default_rng(canvas[1])
    image = rng.integers(0, 255, (*canvas, 3), np.uint8)
    stored: dict[str, Any] = {
        "image": image,
        "text": rng.standard_normal((CLASSES, EMBEDDING)).astype(np.float32),
        "overlap": np.ones(CLASSES, np.float32),
    }
    feed = pipeline.image_feed(image, canvas, canvas) | pipeline.vocabulary_feed(stored["text"], stored["overlap"])
    found = chain.run(feed, {tensor.name for graph in graphs for tensor in graph.outputs}).tensors
    labels = pipeline.evidence(found, (), Placement(canvas, canvas, canvas, True, None)).compose().labels
    stored |= {"labels": labels} | {f"tensor:{name}": sample(array) for name, array in found.items()}
    file = f"reference/{size_text(canvas)}-0.npz"
    np.savez(edit.stage(file), **stored)
    edit.add_reference(size_text(canvas), file)


def add_text_reference(bundle: Bundle, edit: BundleEdit) -> None:
    graph = bundle.graph("text", "fp32", None)
    session = get_backend("onnxruntime").open(bundle.graph_files(graph), graph)
    feed: dict[str, Any] = {"tokens": np.array([[1, 2, 3], [4, 5, 6]], np.int32), "eot": np.array([2, 2], np.int32)}
    outputs = session.run({name: session.upload(array) for name, array in feed.items()})
    stored = feed | {"tensor:text_embedding": sample(session.download(outputs["text_embedding"]))}
    np.savez(edit.stage("reference/text-0.npz"), **stored)
    edit.add_reference("text", "reference/text-0.npz")
