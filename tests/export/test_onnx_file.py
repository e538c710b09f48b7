import onnx
import pytest
import torch
from onnx.external_data_helper import uses_external_data

from edgeseg.export import ebseg
from edgeseg.export.nets.ebseg import EBSeg
from edgeseg.export.onnx_file import ALIGNMENT, OPSET, WeightFile, export_graph, graph_file_name
from edgeseg.export.recipe import preset
from tests.export.small import fill, small_config

pytestmark = [pytest.mark.torch, pytest.mark.onnx]

IMAGE_GRAPHS = ["sam", "clip_trunk", "head", "clip_tail", "score"]


def read(bundle, name, canvas=(96, 160)):
    """The graph as it is on disk, its weights left in their file."""
    spec = next(g for g in bundle.manifest.graphs if g.name == name and g.canvas in (canvas, None))
    return onnx.load(bundle.graph_files(spec), load_external_data=False)


def places(proto):
    """Weight → (file, offset, length) of those that lie outside."""
    found = {}
    for tensor in proto.graph.initializer:
        if uses_external_data(tensor):
            entry = {item.key: item.value for item in tensor.external_data}
            found[tensor.name] = entry["location"], int(entry["offset"]), int(entry["length"])
    return found


def kinds(proto):
    return {node.op_type for node in proto.graph.node}


@pytest.mark.parametrize("like", ["b", "l"])
@pytest.mark.parametrize("name", [*IMAGE_GRAPHS, "text"])
def test_a_graph_is_valid_opset_17_in_the_ir_of_its_time(small_bundle, like, name):
    proto = read(small_bundle(like), name, (96, 160) if like == "b" else (128, 224))
    assert [(item.domain, item.version) for item in proto.opset_import] == [("", OPSET)]
    assert (OPSET, proto.ir_version) == (17, 8)
    spec = next(g for g in small_bundle(like).manifest.graphs if g.name == name)
    onnx.checker.check_model(str(small_bundle(like).path / spec.file), full_check=True)


@pytest.mark.parametrize("like", ["b", "l"])
@pytest.mark.parametrize("name", IMAGE_GRAPHS)
def test_image_graphs_hold_no_operator_that_engines_dislike(small_bundle, like, name):
    found = kinds(read(small_bundle(like), name, (96, 160) if like == "b" else (128, 224)))
    assert not found & {"GridSample", "Gemm", "Shape", "Identity", "If", "Loop", "NonZero", "Constant", "Einsum"}


@pytest.mark.parametrize(
    ("name", "count"), [("sam", 12), ("clip_trunk", 1 + 2 * 3), ("clip_tail", 5), ("text", 2 * 2 + 1)]
)
def test_each_layer_norm_stays_one_operator(small_bundle, name, count):
    proto = read(small_bundle("b"), name)
    norms = [node for node in proto.graph.node if node.op_type == "LayerNormalization"]
    assert len(norms) >= count
    assert "ReduceMean" not in kinds(proto)


@pytest.mark.parametrize(("name", "attentions"), [("sam", 6), ("clip_trunk", 3), ("text", 2)])
def test_q_k_and_v_are_three_products(small_bundle, name, attentions):
    proto = read(small_bundle("b"), name)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    for letter in "qkv":
        products = [n for n in proto.graph.node if n.op_type == "MatMul" and f"/{letter}/MatMul" in n.name]
        assert len(products) == attentions
        assert {shapes[node.input[1]] for node in products} == {(64, 64)}


@pytest.mark.parametrize("name", ["sam", "clip_trunk"])
def test_attention_is_two_products_around_a_softmax(small_bundle, name):
    nodes = read(small_bundle("b"), name).graph.node
    makers = {output: node for node in nodes for output in node.output}
    readers = {name: node for node in nodes for name in node.input}
    softmaxes = [node for node in nodes if node.op_type == "Softmax"]
    assert len(softmaxes) == (6 if name == "sam" else 3 + 2)
    for node in softmaxes:
        before, after = makers[node.input[0]], readers[node.output[0]]
        assert after.op_type == "MatMul"
        assert before.op_type == ("Add" if name == "sam" else "MatMul")  # SAM's relative positions
        if name == "sam":
            assert {"MatMul"} <= {makers[x].op_type for x in before.input if x in makers}


def test_weights_are_named_after_the_module_that_reads_them(small_bundle):
    names = {tensor.name for tensor in read(small_bundle("b"), "sam").graph.initializer}
    for wanted in ("blocks.0.attn.q.MatMul.1", "blocks.5.mlp.lin1.MatMul.1", "blocks.3.norm1.LayerNormalization.1"):
        assert wanted in names


def test_a_second_canvas_adds_only_what_depends_on_the_size(small_bundle):
    bundle = small_bundle("b")
    for name in ("sam", "clip_trunk", "head", "clip_tail"):
        first, second = (places(read(bundle, name, canvas)) for canvas in ((96, 160), (64, 64)))
        shared = {place for place in second.values()} & {place for place in first.values()}
        own = sum(length for _, _, length in set(second.values()) - shared)
        assert sum(length for _, _, length in shared) > 4 * own, name
        kept = [key for key in first if key.endswith("q.MatMul.1")]
        assert all(first[key] == second[key] for key in kept)


@pytest.mark.parametrize("name", IMAGE_GRAPHS[:4])
def test_weights_lie_in_one_file_beside_the_graphs(small_bundle, name):
    bundle = small_bundle("b")
    for spec in (g for g in bundle.manifest.graphs if g.name == name):
        proto = onnx.load(bundle.graph_files(spec), load_external_data=False)
        held = bundle.path / spec.data[0]
        assert spec.data == (f"graphs/fp32/{name}.bin",)
        assert {location for location, _, _ in places(proto).values()} == {held.name}
        assert all(offset % ALIGNMENT == 0 for _, offset, _ in places(proto).values())
        assert max(offset + length for _, offset, length in places(proto).values()) <= held.stat().st_size
        inline = [t for t in proto.graph.initializer if not uses_external_data(t)]
        assert all(len(t.raw_data) < 1024 for t in inline)


@pytest.mark.parametrize("name", [*IMAGE_GRAPHS, "text"])
def test_a_graphs_entry_says_what_the_file_says(small_bundle, name):
    bundle = small_bundle("b")
    spec = next(g for g in bundle.manifest.graphs if g.name == name)
    proto = onnx.load(bundle.graph_files(spec))
    floats = (t for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
    assert spec.parameters == sum(onnx.numpy_helper.to_array(t).size for t in floats)
    for entries, values in ((spec.inputs, proto.graph.input), (spec.outputs, proto.graph.output)):
        for entry, value in zip(entries, values, strict=True):
            dims = value.type.tensor_type.shape.dim
            assert entry.name == value.name
            assert entry.shape == tuple(d.dim_param or d.dim_value for d in dims)
            kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            assert entry.dtype == kind.name
    assert {axis for value in (*spec.inputs, *spec.outputs) for axis in value.shape if isinstance(axis, str)} == set(
        spec.axes
    )


def test_nothing_in_a_graph_tells_where_or_when_it_was_made(small_bundle):
    for name in IMAGE_GRAPHS:
        proto = read(small_bundle("b"), name)
        data = proto.SerializeToString()
        assert b".py" not in data
        assert b"site-packages" not in data
        assert (proto.producer_name, proto.producer_version, proto.doc_string) == ("edgeseg", "", "")


def exported(folder):
    """The four image graphs of one small model, written into `folder`."""
    folder.mkdir()
    model = fill(EBSeg(small_config(text=False)), dtype=torch.float32)
    values = {"image_sam": torch.zeros(1, 3, 64, 96), "image_clip": torch.zeros(1, 3, 32, 48)}
    for plan in ebseg.graphs(model, preset("ebseg-b"), (64, 96)):
        weights = WeightFile(folder / f"{plan.name}.bin")
        file = folder / graph_file_name(plan.name, plan.canvas)
        _, outputs = export_graph(plan, values, file, weights, "graphs/fp32")
        weights.close()
        values.update(outputs)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_the_same_weights_give_the_same_bytes(tmp_path):
    first, second = exported(tmp_path / "a"), exported(tmp_path / "b")
    assert len(first) == 8
    assert first == second


def test_equal_weights_are_stored_once_and_aligned(tmp_path):
    file = WeightFile(tmp_path / "w.bin")
    assert [file.add(b"x" * 5000), file.add(b"y"), file.add(b"x" * 5000)] == [(0, 5000), (8192, 1), (0, 5000)]
    file.close()
    assert (tmp_path / "w.bin").read_bytes() == b"x" * 5000 + b"\0" * 3192 + b"y"
