"""The sentence encoder against the published architecture, written out plainly for one text at a time, in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from edgeseg.export import text_encoders
from edgeseg.export.nets.minilm import MiniLM
from edgeseg.export.onnx_file import WeightFile, export_graph
from tests.export.small import fill
from tests.minilm import real_folder, small_config

pytestmark = pytest.mark.torch

SIZES = [{}, {"width": 32, "heads": 1, "depth": 1}, {"width": 96, "heads": 3, "depth": 3, "hidden": 40}]


def plain(state, heads, tokens):
    """One text, token numbers → its unit embedding, straight from the papers; `state` in float64."""

    def linear(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x, name):
        x = x - x.mean(1, keepdim=True)
        x = x / (x.square().mean(1, keepdim=True) + 1e-12).sqrt()
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    tables = [state[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")]
    x = norm(tables[0][tokens] + tables[1][: len(tokens)] + tables[2][0], "embeddings.LayerNorm")
    depth = len({name.split(".")[2] for name in state if name.startswith("encoder.layer.")})
    for block in (f"encoder.layer.{i}" for i in range(depth)):
        q, k, v = (linear(x, f"{block}.attention.self.{n}").chunk(heads, 1) for n in ("query", "key", "value"))
        mixed = [
            torch.softmax(q[h] @ k[h].T / q[h].shape[1] ** 0.5, dim=1) @ v[h]  # one head
            for h in range(heads)
        ]
        x = norm(
            x + linear(torch.cat(mixed, 1), f"{block}.attention.output.dense"), f"{block}.attention.output.LayerNorm"
        )
        y = linear(x, f"{block}.intermediate.dense")
        y = y / 2 * (1 + torch.erf(y / 2**0.5))
        x = norm(x + linear(y, f"{block}.output.dense"), f"{block}.output.LayerNorm")
    mean = x.mean(0)
    return mean / mean.norm()


def batch(words, count, width, seed=0):
    """Random tokens (N, T), which fill what follows each text too, and lengths (N,) of which one is T and one is 2."""
    random = np.random.Generator(np.random.PCG64([count, width, seed]))
    lengths = random.integers(2, width + 1, count)
    lengths[0], lengths[-1] = 2, width
    tokens = random.integers(0, words, (count, width))
    return torch.from_numpy(tokens.astype(np.int32)), torch.from_numpy(lengths.astype(np.int32))


def assert_plain(network, count, width):
    tokens, lengths = batch(network.config.words, count, width)
    state = {name: value.double() for name, value in network.state_dict().items()}
    found = network.double()(tokens, lengths)
    for row, length, embedding in zip(tokens, lengths, found, strict=True):
        wanted = plain(state, network.config.heads, row[:length].long())
        torch.testing.assert_close(embedding, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("count", "width"), [(1, 2), (4, 9), (3, 60)])
def test_the_network_is_the_plain_one(sizes, count, width):
    assert_plain(fill(MiniLM(small_config(**sizes))), count, width)


@pytest.fixture(scope="module")
def real():
    return text_encoders.find("minilm", None, real_folder())


def test_with_the_published_weights_it_is_the_plain_one(real):
    assert_plain(text_encoders.load_minilm(real_folder() / "model.safetensors"), 3, 20)


def embed(encoder, texts, tmp_path):
    from edgeseg.vocabulary.wordpiece import WordPieceTokenizer

    path = tmp_path / "tokenizer.json"
    path.write_text(encoder.tokenizer, "utf-8")
    tokenizer = WordPieceTokenizer.open(path)
    inputs = tokenizer.inputs([tokenizer.tokenize(text) for text in texts])
    return encoder.plan.network(*(torch.from_numpy(inputs[name]) for name in encoder.plan.inputs)).numpy()


@pytest.mark.parametrize(
    ("name", "near", "far"),
    [
        ("automobile", "car", "tree"),
        ("street", "road", "sky"),
        ("cyclist", "bicyclist", "building"),
        ("trees", "tree", "car"),
        ("sidewalk", "pavement", "fence"),
    ],
)
def test_a_synonym_is_nearer_than_another_thing(real, tmp_path, name, near, far):
    own, first, second = embed(real, [name, near, far], tmp_path)
    assert own @ first > own @ second + 0.1


@pytest.mark.parametrize("padding", [0, 1, 40])
def test_padding_changes_nothing(real, padding):
    """Neither its length nor what stands in it."""
    tokens, lengths = batch(30522, 3, 12)
    filled = torch.cat((tokens, torch.randint(0, 30522, (3, padding), dtype=torch.int32)), 1)
    wanted = [
        real.plan.network(row[None, :length], length[None])[0] for row, length in zip(tokens, lengths, strict=True)
    ]
    torch.testing.assert_close(real.plan.network(filled, lengths), torch.stack(wanted), rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def exported(real, tmp_path_factory):
    """The real encoder as ONNX: its entry and its file."""
    folder = tmp_path_factory.mktemp("minilm")
    weights, file = WeightFile(folder / "text.bin"), folder / "text-any.onnx"
    tokens, lengths = batch(30522, 3, 9)
    spec, _ = export_graph(real.plan, {"tokens": tokens, "length": lengths}, file, weights, "graphs/fp32")
    weights.close()
    return spec, file


@pytest.mark.onnx
@pytest.mark.parametrize(("count", "width"), [(1, 3), (5, 20), (2, 256), (64, 4)])
def test_onnxruntime_gives_what_torch_gives(real, exported, count, width):
    from edgeseg.backends import get_backend

    spec, file = exported
    session = get_backend("onnxruntime", 1).open(file, spec)
    tokens, lengths = batch(30522, count, width)
    given = {"tokens": session.upload(tokens.numpy()), "length": session.upload(lengths.numpy())}
    found = session.download(session.run(given)["text_embedding"])
    session.close()
    np.testing.assert_allclose(found, real.plan.network(tokens, lengths).numpy(), rtol=0, atol=1e-5)


@pytest.mark.onnx
def test_the_graph_says_what_it_takes(exported):
    spec, _ = exported
    assert [(item.name, item.dtype, item.shape) for item in (*spec.inputs, *spec.outputs)] == [
        ("tokens", "int32", ("N", "T")),
        ("length", "int32", ("N",)),
        ("text_embedding", "float32", ("N", 384)),
    ]
    assert spec.axes == {"N": (1, 64, 256), "T": (3, 16, 256)}


def halved(file, folder):
    """The graph in fp16, in which the compiler fuses attention."""
    import onnx

    from edgeseg.calibration.fp16 import to_half
    from edgeseg.calibration.weights import WeightReader, WeightWriter

    model = onnx.load(file, load_external_data=False)
    with WeightWriter(folder / "text.bin") as writer:
        to_half(model, WeightReader([file.with_name("text.bin")]), writer, "text")
    (folder / "text-any.onnx").write_bytes(model.SerializeToString())
    return folder / "text-any.onnx"


@pytest.mark.onnx
@pytest.mark.tensorrt
@pytest.mark.slow
def test_nvidias_compiler_takes_the_graph_and_fuses_each_attention(exported, tmp_path):
    from edgeseg.backends import get_backend
    from edgeseg.engines.compiler import Job
    from edgeseg.engines.layers import summary
    from edgeseg.engines.tensorrt_rtx import TensorRTRTXCompiler

    spec, file = exported
    compiler = TensorRTRTXCompiler(get_backend("tensorrt_rtx").probe(), ("sm89",))
    target = tmp_path / "text.engine"
    whole = compiler.compile(Job(file, spec, target, tmp_path), lambda *_: None)
    assert summary(whole.layers)["layers"] > 0
    assert target.stat().st_size > 1000
    job = Job(halved(file, tmp_path), replace(spec, precision="fp16"), target, tmp_path)
    half = compiler.compile(job, lambda *_: None)
    assert summary(half.layers)["fused_attentions"] == 6
