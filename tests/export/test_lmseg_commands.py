"""LMSeg from a checkpoint to a label map, by nothing but the commands, in int8 on onnxruntime."""

import json
from contextlib import closing
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image

from edgeseg.backends.host import overflows
from edgeseg.bundle import Bundle
from edgeseg.chains import Chains
from edgeseg.cli import main
from edgeseg.export import bundle as module
from edgeseg.pipelines import get_pipeline
from edgeseg.selection import Request, choose
from tests.conftest import NO_VNNI
from tests.export.small_lmseg import SAM, write_small

pytestmark = [pytest.mark.torch, pytest.mark.onnx, pytest.mark.slow]

TEXT = (64, 1, 1, 77, 49408)
CANVAS = (384, 384)
# Root of the mean square of what int8 changes, as a share of the tensor's own; measured, and a tenth more.
FURTHEST = {
    "clip_features": 0.13,
    "sam_features": 0.047,
    "features": 0.13,
    "guidance_2": 0.082,
    "guidance_4": 0.087,
    "logits": 0.093,
}
HERE = ["--backend", "onnxruntime", "--precision", "int8"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A bundle of fp32 and int8 graphs, and a photo."""
    folder = tmp_path_factory.mktemp("lmseg")
    checkpoint, recipe = write_small(folder, sam=SAM, text=TEXT)
    bundle, photos = folder / "small.bundle", folder / "photos"
    photos.mkdir()
    pixels = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    Image.fromarray(pixels).resize((420, 300)).save(photos / "photo.png")
    with patch.object(module, "choose_recipe", lambda *_: recipe):
        assert main(["export", str(checkpoint.path), "-o", str(bundle)]) == 0
    assert main(["quantize", str(bundle), "--precision", "int8", "--images", str(photos)]) == 0
    return bundle, photos / "photo.png"


def answer(capsys, *words):
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_int8_engines_are_built_gated_and_verified(place, capsys):
    bundle, _ = place
    engines = answer(capsys, "build", bundle, *HERE)["engines"]
    gates = {engine["engine"]["graph"]: engine["engine"]["gate"] for engine in engines}
    assert set(gates) >= {"clip", "sam", "rank", "aggregate"}
    assert all(gate["passed"] for gate in gates.values())
    found = answer(capsys, "verify", bundle, *HERE)
    assert {"clip_features", "sam_features", "features", "logits"} <= {row["tensor"] for row in found["tensors"]}


def test_a_photo_is_segmented_with_and_without_early_rejection(place, tmp_path, capsys):
    bundle, photo = place
    words = ["run", bundle, photo, *HERE, "--classes", "cat, dog, sky, car", "-o", tmp_path]
    for options, seen in ((), 4), (("--top-k", "2"), 2):
        (image,) = answer(capsys, *words, *options)["images"]
        areas = [found["area_pixels"] for found in image["classes"]]
        assert len(areas) == 4
        assert sum(areas) == 300 * 420
        assert sum(area > 0 for area in areas) <= seen


@pytest.mark.tensorrt
def test_nvidias_compiler_takes_every_graph_and_fuses_the_encoders_attention(place, capsys):
    """Ahead of time for a GPU that need not be there. CLIP's last block has no attention."""
    bundle, _ = place
    assert main(["quantize", str(bundle), "--precision", "fp16"]) == 0
    words = ["--backend", "tensorrt_rtx", "--target", "sm89", "--precision", "fp16"]
    engines = answer(capsys, "build", bundle, *words)["engines"]
    layers = {engine["engine"]["graph"]: engine["layers"] for engine in engines}
    assert {"clip", "sam", "rank", "aggregate"} <= set(layers)
    fused = {name: layers[name]["fused_attentions"] for name in ("clip", "sam")}
    assert fused == {"clip": 3, "sam": 3}
    graph = Bundle.open(bundle).graph("aggregate", "fp16", (384, 384))
    named = [axis for tensor in (*graph.inputs, *graph.outputs) for axis in tensor.shape if isinstance(axis, str)]
    assert named == ["S", "S"]


def tensors(bundle, precision, feed):
    """Every tensor of the chain."""
    pipeline = get_pipeline(bundle.manifest)
    chains = Chains(bundle, choose(bundle, pipeline.graphs, Request("onnxruntime", precision)), pipeline.graphs)
    with closing(chains):
        return chains.chain(CANVAS).run(feed, FURTHEST).tensors


@pytest.mark.skipif(overflows(), reason=NO_VNNI)
def test_int8_is_as_near_to_fp32_as_it_was_measured(place, capsys):
    """The gate's cosine sees no scale, and its labels are loose here, where classes are nearly alike."""
    path, _ = place
    answer(capsys, "build", path, *HERE)
    bundle = Bundle.open(path)
    feed = get_pipeline(bundle.manifest).reference_feed(bundle.reference("384x384")[0], CANVAS)
    found, wanted = (tensors(bundle, precision, feed) for precision in ("int8", "fp32"))
    far = {name: np.linalg.norm(found[name] - wanted[name]) / np.linalg.norm(wanted[name]) for name in FURTHEST}
    assert {name: value for name, value in far.items() if value > FURTHEST[name]} == {}
