"""A tiny text encoder: a real ONNX graph, the real tokenizer format, a bundle's folder with just these two."""

import json
from pathlib import Path

import numpy as np

from edgeseg.errors import BundleError
from edgeseg.schema import FileSpec, GraphSpec, Manifest, Source, TensorSpec
from edgeseg.vocabulary.tokenizer import END, START, pipeline

DIMENSIONS, CONTEXT = 8, 40
TEMPLATES = ["a photo of a {}.", "There is a {} in the scene"]


def tiny_tokenizer() -> dict:
    """Letters are tokens, and so is `ca`, to have a merge."""
    letters = [chr(code) for code in range(0x21, 0x7F)] + [chr(0x100 + index) for index in range(256)]
    tokens = [*letters, *(letter + "</w>" for letter in letters), "ca", START, END]
    return pipeline({token: number for number, token in enumerate(tokens)}, ["c a"])


def write_tokenizer(folder: Path) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(tiny_tokenizer()))
    return path


def text_graph(folder: Path) -> GraphSpec:
    """The sum of the token vectors up to the end token: like CLIP, blind to what comes after."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    table = rng.standard_normal((1024, DIMENSIONS)).astype(np.float32)
    constants = {"table": table, "one": np.array([1]), "axis": np.array(1)}
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["vectors"]),
        helper.make_node("CumSum", ["vectors", "axis"], ["sums"]),
        helper.make_node("Cast", ["eot"], ["eot64"], to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["eot64", "one"], ["index"]),
        helper.make_node("GatherND", ["sums", "index"], ["picked"], batch_dims=1),
        helper.make_node("LpNormalization", ["picked"], ["text_embedding"], axis=1, p=2),
    ]
    inputs = [("tokens", ["N", "T"]), ("eot", ["N"])]
    graph = helper.make_graph(
        nodes,
        "text",
        [helper.make_tensor_value_info(name, TensorProto.INT32, shape) for name, shape in inputs],
        [helper.make_tensor_value_info("text_embedding", TensorProto.FLOAT, ["N", DIMENSIONS])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "text.onnx")
    specs = (TensorSpec("tokens", "int32", ("N", "T")), TensorSpec("eot", "int32", ("N",)))
    made = (TensorSpec("text_embedding", "float32", ("N", DIMENSIONS)),)
    axes = {"N": (1, 4, 8), "T": (3, 16, CONTEXT)}
    return GraphSpec("text", "fp32", None, "text.onnx", (), specs, made, axes)


class OnnxSession:
    """The smallest session on the real onnxruntime; counts what it is asked."""

    def __init__(self, path: Path, runs: list[tuple[int, ...]]) -> None:
        import onnxruntime

        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self._runs, self.closed = runs, False

    def upload(self, array):
        return array

    def run(self, inputs, stream=None):
        self._runs.append(inputs["tokens"].shape)
        return {"text_embedding": self._session.run(["text_embedding"], dict(inputs))[0]}

    def download(self, tensor):
        return tensor

    def close(self) -> None:
        self.closed = True


class FolderBundle:
    """The folder of a bundle; `runs` and `sessions` collect what its text encoder was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs: list[tuple[int, ...]] = []
        self.sessions: list[OnnxSession] = []
        recipe = {"templates": TEMPLATES, "text_encoder": "clip", "text_context": CONTEXT, "embedding": DIMENSIONS}
        recipe |= {"training_classes": ["cat", "cats", "dog"]}
        score = GraphSpec("score", "fp32", None, "score.onnx", (), (), (), {"C": (1, 150, 200)})
        files = {name: FileSpec(letter * 64, 1) for name, letter in (("text.onnx", "a"), ("tokenizer.json", "b"))}
        source = Source("tiny.pth", "c" * 64)
        graphs = (text_graph(folder), score)
        self.manifest = Manifest(1, "0.1", "ebseg", "tiny", source, recipe, {}, (), graphs, files=files)

    def file(self, relative: str) -> Path:
        return self.folder / relative

    def graph_files(self, spec: GraphSpec) -> Path:
        if spec.file not in self.manifest.files:
            raise BundleError("read the graph", "only its engines are here", "use the full bundle")
        return self.folder / spec.file

    def open_session(self, spec: GraphSpec, path: Path) -> OnnxSession:
        self.sessions.append(OnnxSession(path, self.runs))
        return self.sessions[-1]
