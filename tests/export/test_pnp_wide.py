"""NVIDIA's compiler, ahead of time, on BLIP-large's graphs at their true widths, with fewer blocks."""

from dataclasses import replace
from importlib import resources

import numpy as np
import onnx
import pytest
import torch

import edgeseg
from benches.peers.made import blip_tensor
from edgeseg.bundle import Bundle
from edgeseg.export import bundle as exporter
from edgeseg.export.nets.blip_itm import BlipItm, ItmConfig
from edgeseg.export.nets.blip_vit import BlipViT, VitConfig
from edgeseg.export.recipe import preset
from edgeseg.images import load

pytestmark = [pytest.mark.torch, pytest.mark.onnx, pytest.mark.tensorrt, pytest.mark.slow]

TARGET, CANVAS = "sm89", (336, 336)
BLOCKS, TEXT_BLOCKS, WORDS = 2, 3, 3000
NAMES = ("sky", "temple", "water", "tree", "person", "flower")
PHOTOS = ("china.jpg", "flower.jpg")  # scikit-learn's, CC BY 2.0


def checkpoint(folder):
    """Two blocks of the image encoder and three of the text encoder, the map from the second, and a vocabulary."""
    torch.manual_seed(0)
    parts = {
        "visual_encoder.": BlipViT(VitConfig(depth=BLOCKS)),
        "": BlipItm(ItmConfig(depth=TEXT_BLOCKS, words=WORDS)),
    }
    state = {}
    for prefix, network in parts.items():
        for name, value in network.state_dict().items():
            state[prefix + name] = blip_tensor(prefix + name, torch.randn(value.shape))
    torch.save({"model": state}, folder / "blip.pth")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "picture", "of", *NAMES]
    words += [f"word{i}" for i in range(WORDS - 2 - len(words))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", "utf-8")
    return exporter.Checkpoint(folder / "blip.pth", text_encoder=folder)


def photos():
    """Two, as (427, 640, 3) uint8."""
    folder = resources.files(pytest.importorskip("sklearn.datasets").__name__) / "images"
    return [load(folder / name).rgb for name in PHOTOS]


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """The bundle, fp32 and fp16."""
    from edgeseg.calibration.quantize import quantize_bundle

    folder = tmp_path_factory.mktemp("wide")
    recipe = preset("pnp-ovss")
    recipe = replace(recipe, options=recipe.options | {"layer": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "preset_names", lambda: ["pnp-ovss"])
        patch.setattr(exporter, "preset", lambda name: recipe)
        made = exporter.export_bundle(checkpoint(folder), [CANVAS], folder / "wide.bundle", photos=photos())
    quantize_bundle(made, lambda *_: None)
    return Bundle.open(made.path)


@pytest.mark.parametrize(("name", "fused"), [("blip_vit", BLOCKS), ("blip_itm_cam", 2), ("score", 0)])
def test_the_compiler_takes_the_graph_and_fuses_its_plain_attentions(wide, tmp_path, name, fused):
    """In the text encoder the block below the map has two of them; the others give their weights to the gradient."""
    spec = wide.graph(name, "fp16", CANVAS)
    layers = compiled(wide.graph_files(spec), spec, tmp_path)
    assert layers["layers"] > 0
    assert layers["fused_attentions"] == fused


def test_the_compiler_fuses_the_attentions_that_a_repair_leaves_in_half_precision(wide, tmp_path):
    """The stem and a block in fp32, which is never fused; the other block as before."""
    from edgeseg.engines.blame import Blamed
    from edgeseg.engines.ladder import lifts
    from edgeseg.engines.lifting import STEM
    from edgeseg.engines.making import placed

    spec = wide.graph("blip_vit", "fp16", CANVAS)
    order = [Blamed(STEM, 0.03), Blamed("/blocks.0", 0.02), Blamed("/blocks.1", 0.01)]
    model = onnx.load(wide.graph_files(spec), load_external_data=False)
    assert lifts(wide, spec, lambda: order)[1].rewrite(spec)(model)
    path = placed(model, [wide.file(name) for name in spec.data], tmp_path)
    assert compiled(path, spec, tmp_path)["fused_attentions"] == BLOCKS - 1


def compiled(path, spec, folder):
    """What the engine of an ONNX file is made of."""
    from edgeseg.backends import get_backend
    from edgeseg.engines.compiler import Job
    from edgeseg.engines.layers import summary
    from edgeseg.engines.tensorrt_rtx import TensorRTRTXCompiler

    compiler = TensorRTRTXCompiler(get_backend("tensorrt_rtx").probe(), (TARGET,))
    target = folder / "made.engine"
    outcome = compiler.compile(Job(path, spec, target, folder, changed=True), lambda *_: None)
    assert target.stat().st_size > 1000
    return summary(outcome.layers)


def test_half_precision_passes_the_gate(wide):
    from edgeseg.engines.gate import check

    _, report = check(wide, "onnxruntime", "fp16", (CANVAS,), shown=False)
    assert not report.failures


def test_half_precision_keeps_maps_and_labels_of_photos_over_four_rounds(wide):
    """Against fp32, with weights that were not trained. A patch that rounding picks otherwise would show in both."""
    found = {}
    for precision in ("fp32", "fp16"):
        with edgeseg.open(wide.path, "onnxruntime", precision) as segmenter:
            found[precision] = [segmenter(photo, NAMES, settings={"filter": "none"}) for photo in photos()]
    for half, single in zip(found["fp16"], found["fp32"], strict=True):
        maps = [np.float64(result.masks.arrays()["class_maps"]).ravel() for result in (half, single)]
        assert maps[0] @ maps[1] / np.linalg.norm(maps[0]) / np.linalg.norm(maps[1]) >= 0.999
        assert (half.labels == single.labels).mean() >= 0.99
        assert len(np.unique(single.labels)) > 2
