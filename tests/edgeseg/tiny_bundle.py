"""A bundle with the wiring of EBSeg and tiny widths: real ONNX graphs, real tokenizer, references made by onnxruntime.

`make_bundle(path)` needs onnx and onnxruntime (mark such tests `onnx`). `make_fake_bundle(path)` needs neither: its
graph files hold no graphs, and it runs on the fake backend.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.bundle import Bundle
from edgeseg.closeness import sample
from edgeseg.compose import compose
from edgeseg.pipelines.ebseg import EBSegPipeline
from edgeseg.placement import Placement
from edgeseg.schema import GraphSpec, ImageTransform, Manifest, Source, TensorSpec, size_text
from tests.edgeseg.vocabulary.tiny import CONTEXT, DIMENSIONS, TEMPLATES, text_graph, write_tokenizer

CANVASES = ((64, 64), (64, 96))
QUERIES, HEADS, SAM_WIDTH, CLIP_WIDTH = 5, 2, 12, 6
CLASSES = ["cat", "dog", "wooden table"]
CHAIN = ("sam", "clip_trunk", "head", "clip_tail", "score")


def manifest() -> Manifest:
    recipe = {
        "resize": {"mode": "short-side", "short": 64, "long": 256},
        "divisor": 32,
        "mask_stride": 4,
        "queries": QUERIES,
        "embedding": DIMENSIONS,
        "templates": TEMPLATES,
        "text_encoder": "clip",
        "text_context": CONTEXT,
        "training_classes": ["cat", "dog"],
        "gate": {"fp32": {"cosine": 0.9999, "agreement": 0.999}, "fp16": {"cosine": 0.999, "agreement": 0.99}},
    }
    images = {
        "image_sam": ImageTransform((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), 1.0),
        "image_clip": ImageTransform((122.77, 116.75, 104.09), (68.5, 66.63, 70.32), 0.5),
    }
    return Manifest(1, "0.1.0", "ebseg", "tiny", Source("tiny.pth", "c" * 64), recipe, images, CANVASES)


def chain_spec(name: str, canvas: tuple[int, int]) -> GraphSpec:
    """The specification of a chain's graph, as `export` writes it."""
    height, width = canvas
    tokens, patches = height * width // 256, height * width // 1024
    shapes: dict[str, tuple[int | str, ...]] = {
        "image_sam": (1, 3, height, width),
        "image_clip": (1, 3, height // 2, width // 2),
        **{f"sam_{block}": (1, tokens, SAM_WIDTH) for block in (2, 5, 8, 11)},
        **{f"clip_{block}": (1, patches, CLIP_WIDTH) for block in (3, 6)},
        "clip_tokens": (1, 1 + patches, CLIP_WIDTH),
        "clip_surgery": (1, 1 + patches, CLIP_WIDTH),
        "mask_logits": (1, QUERIES, height // 4, width // 4),
        "attention_bias": (1, HEADS, QUERIES, patches),
        **{f"embedding_{letter}": (1, QUERIES, DIMENSIONS) for letter in "abd"},
        "text": ("C", DIMENSIONS),
        "overlap": ("C",),
        "class_probs": (1, QUERIES, "C"),
    }
    wires = {
        "sam": (["image_sam"], ["sam_2", "sam_5", "sam_8", "sam_11"]),
        "clip_trunk": (["image_clip"], ["clip_3", "clip_6", "clip_tokens", "clip_surgery"]),
        "head": (
            ["sam_2", "sam_5", "sam_8", "sam_11", "clip_3", "clip_6", "clip_tokens"],
            ["mask_logits", "embedding_a", "attention_bias"],
        ),
        "clip_tail": (["clip_tokens", "clip_surgery", "attention_bias", "mask_logits"], ["embedding_b", "embedding_d"]),
        "score": (["embedding_a", "embedding_b", "embedding_d", "text", "overlap"], ["class_probs"]),
    }
    inputs, outputs = ([TensorSpec(n, "float32", shapes[n]) for n in names] for names in wires[name])
    place = None if name == "score" else canvas
    axes = {"C": (1, 150, 1024)} if name == "score" else {}
    file = f"graphs/fp32/{name}-{size_text(place)}.onnx"
    return GraphSpec(name, "fp32", place, file, (), tuple(inputs), tuple(outputs), axes)


def make_bundle(path: Path, canvases=CANVASES) -> Bundle:
    """A bundle that runs on onnxruntime, with one reference per canvas and one for the text encoder."""
    with Bundle.create(path, replace(manifest(), canvases=tuple(canvases))) as edit:
        for spec in [chain_spec(name, canvas) for name in CHAIN[:-1] for canvas in canvases]:
            _write_graph(spec, edit.stage(spec.file))
            edit.add_graph(spec)
        score = chain_spec("score", CANVASES[0])
        _write_graph(score, edit.stage(score.file))
        edit.add_graph(score)
        _add_text(edit)
    bundle = Bundle.open(path)
    add_references(bundle)
    return bundle


def make_fake_bundle(path: Path, canvases=CANVASES) -> Bundle:
    """The same without graphs and text encoder, for `FakeBackend`."""
    with Bundle.create(path, replace(manifest(), canvases=tuple(canvases))) as edit:
        specs = {spec.file: spec for canvas in canvases for spec in (chain_spec(name, canvas) for name in CHAIN)}
        for file, spec in specs.items():
            edit.stage(file).write_bytes(b"no graph: " + file.encode())
            edit.add_graph(spec)
    return Bundle.open(path)


def add_references(bundle: Bundle) -> None:
    """Give a bundle reference tensors: what onnxruntime, called by hand, makes of a random image."""
    rng = np.random.default_rng(7)
    text = rng.standard_normal((4, DIMENSIONS)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    with bundle.edit() as edit:
        for canvas in bundle.manifest.canvases:
            stored: dict[str, Any] = {"text": text, "overlap": np.array([1, 0, 0, 1], np.float32)}
            stored["image"] = rng.integers(0, 256, (*canvas, 3)).astype(np.uint8)
            file = f"reference/{size_text(canvas)}-0.npz"
            np.savez(edit.stage(file), **_run_by_hand(bundle, canvas, stored), **stored)
            edit.add_reference(size_text(canvas), file)
        tokens = rng.integers(1, 300, (2, 9)).astype(np.int32)
        prompts: dict[str, Any] = {"tokens": tokens, "eot": np.array([4, 8], np.int32)}
        made = _session(bundle, bundle.graph("text", "fp32", None)).run(None, prompts)[0]
        prompts["tensor:text_embedding"] = sample(made)
        np.savez(edit.stage("reference/text-0.npz"), **prompts)
        edit.add_reference("text", "reference/text-0.npz")


def _run_by_hand(bundle: Bundle, canvas, stored):
    images = EBSegPipeline(bundle.manifest).image_feed(stored["image"], canvas, canvas)
    tensors = {**images, "text": stored["text"], "overlap": stored["overlap"]}
    for name in CHAIN:
        spec = bundle.graph(name, "fp32", canvas)
        made = _session(bundle, spec).run(None, {tensor.name: tensors[tensor.name] for tensor in spec.inputs})
        tensors |= dict(zip((tensor.name for tensor in spec.outputs), made, strict=True))
    placement = Placement(canvas, canvas, canvas, True, None)
    labels = compose(tensors["mask_logits"][0], tensors["class_probs"][0], placement).labels
    samples = {f"tensor:{name}": sample(tensor) for name, tensor in tensors.items() if name not in stored}
    return {"labels": labels, **samples}


def _session(bundle: Bundle, spec: GraphSpec):
    import onnxruntime

    return onnxruntime.InferenceSession(str(bundle.graph_files(spec)), providers=["CPUExecutionProvider"])


def _add_text(edit) -> None:
    file = "graphs/fp32/text-any.onnx"
    folder = edit.stage(file).parent
    spec = replace(text_graph(folder), file=file)
    shutil.move(folder / "text.onnx", edit.stage(file))
    edit.add_graph(spec)
    shutil.move(write_tokenizer(edit.scratch()), edit.stage("tokenizer.json"))


class _Graph:
    """Collects nodes and random weights; `make` adds one node and gives its output's name."""

    def __init__(self, spec: GraphSpec) -> None:
        self.spec = spec
        self.nodes: list[Any] = []
        self.weights: dict[str, Any] = {}
        self._rng = np.random.default_rng(len(spec.name))

    def make(self, op: str, *inputs: str, to: str | None = None, **attributes) -> str:
        from onnx import helper

        to = to or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [to], **attributes))
        return to

    def weight(self, *shape: int, scale: float = 0.5) -> str:
        return self.constant((self._rng.standard_normal(shape) * scale).astype(np.float32))

    def constant(self, array) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = np.asarray(array)
        return name

    def shape(self, name: str) -> list[Any]:
        """Of an input or output."""
        return next(list(t.shape) for t in (*self.spec.inputs, *self.spec.outputs) if t.name == name)

    def reshape(self, tensor: str, shape, to: str | None = None) -> str:
        return self.make("Reshape", tensor, self.constant(np.array(shape, np.int64)), to=to)

    def patches(self, image: str, width: int) -> str:
        """(1, 3, H, W) to (1, H/16 * W/16, width) row-major tokens."""
        grid = self.make("Conv", image, self.weight(width, 3, 16, 16, scale=0.05), strides=[16, 16])
        return self.make("Transpose", self.reshape(grid, [1, width, -1]), perm=[0, 2, 1])

    def save(self, path: Path) -> None:
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        def info(tensor):
            return helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, list(tensor.shape))

        weights = [numpy_helper.from_array(array, name) for name, array in self.weights.items()]
        inputs, outputs = ([info(t) for t in tensors] for tensors in (self.spec.inputs, self.spec.outputs))
        graph = helper.make_graph(self.nodes, self.spec.name, inputs, outputs, weights)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def _write_graph(spec: GraphSpec, path: Path) -> None:
    graph = _Graph(spec)
    {"sam": _sam, "clip_trunk": _clip_trunk, "head": _head, "clip_tail": _clip_tail, "score": _score}[spec.name](graph)
    graph.save(path)


def _sam(graph: _Graph) -> None:
    tokens = graph.patches("image_sam", SAM_WIDTH)
    for block in (2, 5, 8, 11):
        tokens = graph.make("MatMul", tokens, graph.weight(SAM_WIDTH, SAM_WIDTH))
        tokens = graph.make("Tanh", tokens, to=f"sam_{block}")


def _clip_trunk(graph: _Graph) -> None:
    patches = graph.patches("image_clip", CLIP_WIDTH)
    first = graph.make("Tanh", patches, to="clip_3")
    second = graph.make("MatMul", first, graph.weight(CLIP_WIDTH, CLIP_WIDTH), to="clip_6")
    mean = graph.make("ReduceMean", second, axes=[1])
    graph.make("Concat", mean, second, axis=1, to="clip_tokens")
    graph.make("Concat", mean, first, axis=1, to="clip_surgery")


def _head(graph: _Graph) -> None:
    _, queries, height, width = graph.shape("mask_logits")
    fused = graph.make("Sum", "sam_2", "sam_5", "sam_8", "sam_11")
    logits = graph.make("MatMul", fused, graph.weight(SAM_WIDTH, queries, scale=2))
    grid = graph.reshape(graph.make("Transpose", logits, perm=[0, 2, 1]), [1, queries, height // 4, width // 4])
    scales = graph.constant(np.array([1, 1, 4, 4], np.float32))
    graph.make("Resize", grid, "", scales, mode="linear", to="mask_logits")
    clip = graph.make("ReduceMean", graph.make("Sum", "clip_3", "clip_6"), axes=[1])
    clip = graph.make("MatMul", clip, graph.weight(CLIP_WIDTH, queries * DIMENSIONS))
    graph.reshape(clip, [1, queries, DIMENSIONS], to="embedding_a")
    bias = graph.make("MatMul", "clip_tokens", graph.weight(CLIP_WIDTH, HEADS * queries))
    patches = graph.make("Slice", bias, *(graph.constant(np.array([v], np.int64)) for v in (1, 9999, 1)))
    turned = graph.make("Transpose", patches, perm=[0, 2, 1])
    graph.reshape(turned, [1, HEADS, queries, -1], to="attention_bias")


def _clip_tail(graph: _Graph) -> None:
    weights = graph.make("Softmax", graph.make("ReduceMean", "attention_bias", axes=[1], keepdims=0), axis=2)
    dense = graph.make("Slice", "clip_surgery", *(graph.constant(np.array([v], np.int64)) for v in (1, 9999, 1)))
    pooled = graph.make("MatMul", weights, dense)
    area = graph.make("ReduceMean", "mask_logits", axes=[3], keepdims=0)
    area = graph.make("Sigmoid", graph.make("ReduceMean", area, axes=[2]))
    for letter in "bd":
        projected = graph.make("MatMul", pooled, graph.weight(CLIP_WIDTH, DIMENSIONS, scale=2))
        graph.make("Add", projected, area, to=f"embedding_{letter}")


def _score(graph: _Graph) -> None:
    columns = graph.make("Transpose", "text", perm=[1, 0])
    mixed = graph.make("Sum", "embedding_a", "embedding_b", "embedding_d")
    logits = graph.make("MatMul", mixed, columns)
    favoured = graph.make("Mul", "overlap", graph.constant(np.array(0.2, np.float32)))
    graph.make("Softmax", graph.make("Add", logits, favoured), axis=2, to="class_probs")
