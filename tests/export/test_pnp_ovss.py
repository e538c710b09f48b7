"""BLIP's published layout into a bundle, at small sizes: what is read, what is refused, what runs."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch

import edgeseg
from edgeseg.bundle import Bundle
from edgeseg.cli.verify import verify_plan
from edgeseg.errors import BundleError, CheckpointError, InputError
from edgeseg.export import pnp_ovss
from edgeseg.export.bundle import Checkpoint, choose_recipe
from edgeseg.export.checkpoint import read_checkpoint
from edgeseg.export.nets.blip_itm import ItmConfig
from edgeseg.export.nets.blip_vit import VitConfig
from edgeseg.export.recipe import preset
from edgeseg.pipelines.pnp_captions import WordMaker, Words
from edgeseg.pipelines.pnp_maps import ClassMaps
from edgeseg.reference import references
from edgeseg.vocabulary.bank import PromptBank
from tests.export import small_blip

pytestmark = [pytest.mark.torch, pytest.mark.onnx]

# Operators of opset 17 that the parsers of TensorRT 8.6 and 10.3 both list in docs/operators.md as supported.
PARSED = """
    Add And Cast Concat Conv Div Equal Erf Exp Expand Flatten Gather Gemm Greater LayerNormalization Less MatMul Mul Not
    Or ReduceMean ReduceSum Relu Reshape Shape Slice Softmax Sqrt Squeeze Sub Tile Transpose Unsqueeze Where Reciprocal
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The small bundle and the checkpoint that it was made from."""
    folder = tmp_path_factory.mktemp("blip")
    with pytest.MonkeyPatch.context() as patch:
        return small_blip.export_small(folder, patch), folder / "model_large_retrieval_flickr.pth"


def load(folder, change=lambda state: None):
    state = read_checkpoint(small_blip.write_small(folder))
    change(state)
    return pnp_ovss.load(folder / "a.pth", state, small_blip.small_recipe())


def test_what_training_alone_needs_is_left_out(tmp_path):
    model = load(tmp_path)
    assert model.visual_encoder.config == small_blip.VIT_64
    assert (model.match.config.depth, model.match.config.positions) == (4, 40)
    assert model.match.itm_head.weight is model.itm_head.weight


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda s: s.pop("text_encoder.encoder.layer.2.crossattention.self.key.bias"), "crossattention.self.key.bias"),
        (lambda s: s.update(pooler=torch.zeros(3)), "pooler"),
        (lambda s: s.update({"itm_head.weight": torch.zeros(3, 128)}), "itm_head.weight"),
        (lambda s: s.update({"visual_encoder.pos_embed": torch.zeros(1, 25, 128)}), "not square"),
        (lambda s: s.update({"visual_encoder.patch_embed.proj.weight": torch.zeros(100, 3, 16, 16)}), "multiple of 64"),
        (
            lambda s: [s.pop(k) for k in list(s) if "encoder.layer.1." in k or "layer.2." in k or "layer.3." in k],
            "block 1",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, change, found):
    with pytest.raises(CheckpointError, match=found):
        load(tmp_path, change)


@pytest.mark.parametrize("name", ["model_large_retrieval_flickr.pth", "model_large_retrieval_coco.pth"])
def test_published_files_are_told_by_their_tensors(tmp_path, name):
    """Both hold BLIP-large at 384 pixels, its momentum copy, and queues of one length or another."""
    with torch.device("meta"):
        model = pnp_ovss.Blip(VitConfig(), ItmConfig())
    state = dict(model.state_dict())
    copies = {key.replace(".", "_m.", 1): value for key, value in state.items() if not key.startswith("itm")}
    queues = {"image_queue": torch.empty(256, 57600, device="meta"), "idx_queue": torch.empty(1, 9, device="meta")}
    state |= copies | queues
    assert choose_recipe(Checkpoint(tmp_path / name), state).name == "pnp-ovss"
    assert set(pnp_ovss.load(tmp_path / name, state, preset("pnp-ovss")).state_dict()) == set(model.state_dict())


def test_canvas_is_whole_patches():
    with pytest.raises(InputError, match="336x352"):
        pnp_ovss.check_canvas((336, 350))


@pytest.mark.slow
def test_vocabulary_must_be_the_checkpoints(tmp_path, monkeypatch):
    small_blip.write_small(tmp_path)
    words = (tmp_path / "vocab.txt").read_text()
    monkeypatch.setattr(small_blip, "write_small", lambda folder: folder / "model_large_retrieval_flickr.pth")
    (tmp_path / "vocab.txt").write_text(words + "more\n")
    with pytest.raises(CheckpointError, match=r"vocab\.txt"):
        small_blip.export_small(tmp_path, monkeypatch)
    assert not (tmp_path / "small.bundle").exists()


@pytest.mark.slow
def test_bundle_verifies_and_segments(small):
    bundle, _ = small
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    with edgeseg.open(bundle.path, backend="onnxruntime") as segmenter:
        assert not verify_plan(bundle, segmenter.plan).failures
        result = segmenter(image, classes=["cat", "table", "dog of car"], settings={"filter": "none"})
        assert result.labels.shape == (70, 90)
        assert result.exact
        assert isinstance(result.masks, ClassMaps)
        assert len(result.masks.kept) == 3
        assert {"chain.blip_vit", "chain.blip_itm_cam", "chain.score"} <= set(result.timings_ms)
        with pytest.raises(InputError, match="round"):
            segmenter(image, classes=["cat"], settings={"round": 3})
        with pytest.raises(InputError, match="use --top-k with PnP-OVSS"):
            segmenter(image, classes=["cat", "table"], top_k=1)


@pytest.mark.slow
def test_prompt_banks_are_refused(small):
    with pytest.raises(InputError, match="use the prompt bank"):
        WordMaker(small[0]).vocabulary(["cat"], bank=PromptBank.open("voc-20"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("array", "found"),
    [(None, "is missing"), (np.ones((6, 6), np.float32), "other axes"), (np.ones((1, 1, 6, 6), np.int32), "type")],
)
def test_reference_case_without_its_patches_is_refused(small, monkeypatch, array, found):
    stored = small[0].reference("96x96")[0] | {"keep": array}
    case = {name: value for name, value in stored.items() if value is not None}
    monkeypatch.setattr(type(small[0]), "reference", lambda self, _: [case])
    with pytest.raises(BundleError, match=f"keep of reference 0 at 96x96 .*{found}"):
        references(small[0], "96x96")


@pytest.mark.slow
def test_operators_are_those_that_tensorrt_parses(small):
    bundle, _ = small
    for graph in bundle.manifest.graphs:
        model = onnx.load(bundle.graph_files(graph), load_external_data=False)
        assert {node.op_type for node in model.graph.node} <= set(PARSED.split())
        assert {(item.domain, item.version) for item in model.opset_import} == {("", 17)}


@pytest.mark.slow
def test_batch_and_length_are_free_in_the_graphs(small):
    from edgeseg.backends import get_backend

    bundle, _ = small
    random, shapes = np.random.default_rng(0), []
    sessions: dict[str, Any] = {
        name: get_backend("onnxruntime").open(bundle.graph_files(spec), spec)
        for name in ("blip_vit", "blip_itm_cam")
        for spec in [bundle.graph(name, "fp32", (96, 96))]
    }
    pixels = random.standard_normal((2, 3, 96, 96)).astype(np.float32)
    tokens = sessions["blip_vit"].run({"pixels": pixels, "keep": np.ones((2, 1, 6, 6), np.float32)})["image_embeds"]
    ids = random.integers(0, 60, (2, 13)).astype(np.int32)
    mask = np.ones((2, 13), np.int32)
    both = sessions["blip_itm_cam"].run({"image_embeds": tokens, "input_ids": ids, "attn_mask": mask})
    for i in range(2):
        feed = {"image_embeds": tokens[i : i + 1], "input_ids": ids[i : i + 1], "attn_mask": mask[:1]}
        alone = sessions["blip_itm_cam"].run(feed)
        np.testing.assert_allclose(both["cam"][i], alone["cam"][0], rtol=1e-4, atol=1e-7)
        shapes.append(alone["cam"].shape)
    shared = sessions["blip_itm_cam"].run({"image_embeds": tokens[:1], "input_ids": ids, "attn_mask": mask})
    np.testing.assert_allclose(shared["cam"][0], both["cam"][0], rtol=1e-4, atol=1e-7)
    assert shapes == [(1, 13, 36)] * 2
    for graph in (bundle.graph(name, "fp32", (96, 96)) for name in sessions):
        for spec in graph.outputs:  # onnxruntime would not mind a wrong extent, a compiler would
            found = (both | {"image_embeds": tokens})[spec.name].shape
            assert all(extent in (length, *graph.axes) for extent, length in zip(spec.shape, found, strict=True))


@pytest.mark.slow
def test_rounds_are_those_of_the_authors_formulation(small):
    """Autograd, every parameter asking for its gradient, zeros in the image: the same maps and the same patches."""
    from tests.reference import blip_original as original

    bundle, path = small
    image = np.random.default_rng(1).integers(0, 256, (96, 96, 3), np.uint8)
    names = ["cat", "table", "dog of car"]
    settings = {"filter": "none", "patches": 4, "last": "mean"}
    with edgeseg.open(bundle.path, backend="onnxruntime") as segmenter:
        words = segmenter.vocabulary(names)
        found = segmenter.masks(image, words, settings=settings)
    assert isinstance(words, Words)
    assert isinstance(found, ClassMaps)
    state = {name: value.requires_grad_(True) for name, value in _floats(path).items()}
    row = [*words.frame[0], *(piece for name in names for piece in words.pieces[name]), *words.frame[1]]
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (pnp_ovss.MEAN, pnp_ovss.STD))
    sizes = original.Sizes(vit_heads=2, text_heads=2, layer=1, head=1)
    rounds = original.salience_dropout(state, sizes, (pixels - mean) / std, torch.tensor([row]), patches=4)
    place, wanted = 4, []
    for name in names:
        count = len(words.pieces[name])
        wanted.append(rounds.aggregate[place : place + count].mean(0))
        place += count
    np.testing.assert_allclose(found.maps.reshape(3, -1), torch.stack(wanted), rtol=1e-3, atol=1e-6)


def _floats(path):
    """The checkpoint with its positions resized as when it is loaded, without what is never read."""
    state = {k: v.clone() for k, v in read_checkpoint(path).items() if not pnp_ovss.IGNORED.fullmatch(k)}
    table = state["visual_encoder.pos_embed"]
    grid = table[:, 1:].reshape(1, 5, 5, -1).permute(0, 3, 1, 2)
    larger = torch.nn.functional.interpolate(grid, size=(6, 6), mode="bicubic", align_corners=False)
    state["visual_encoder.pos_embed"] = torch.cat((table[:, :1], larger.flatten(2).transpose(1, 2)), dim=1)
    return state


@pytest.mark.slow
def test_half_precision_keeps_the_gradient_and_the_score_in_single(small):
    from edgeseg.calibration.quantize import quantize_bundle

    bundle, _ = small
    quantize_bundle(bundle, lambda *_: None)
    made = Bundle.open(bundle.path)
    assert made.graph("score", "fp16", (96, 96)).file == made.graph("score", "fp32", (96, 96)).file
    model = onnx.load(made.graph_files(made.graph("blip_itm_cam", "fp16", (96, 96))), load_external_data=False)
    kinds = {node.op_type for node in model.graph.node if "fp32_softmax" in node.name}
    assert "Mul" in kinds
    half = {tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16}
    assert len(half) > 40
    for graph in made.manifest.graphs:
        nodes = onnx.load(made.graph_files(graph), load_external_data=False).graph.node
        assert {node.op_type for node in nodes} <= set(PARSED.split())
