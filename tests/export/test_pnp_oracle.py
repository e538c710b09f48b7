"""PnP-OVSS at full size: against what the authors' code computed, and what NVIDIA's compiler makes of it."""

import json

import numpy as np
import pytest

import edgeseg
from edgeseg.bundle import Bundle
from edgeseg.compose import NONE_LABEL
from tests.conftest import skip_or_fail

pytestmark = [pytest.mark.torch, pytest.mark.onnx, pytest.mark.slow]

CANVAS = (336, 336)
TARGET = "sm89"
NUMBERS = {0: 9, 1: 15, 2: 16, 3: 17, NONE_LABEL: 0}  # chair, person, pottedplant, sheep in VOC


@pytest.fixture(scope="module")
def oracle(shared):
    return shared / "oracle/pnp"


@pytest.fixture(scope="module")
def golden(oracle):
    return dict(np.load(oracle / "single0.npz")), json.loads((oracle / "single0.json").read_text())


@pytest.fixture(scope="module")
def bundle(oracle, tmp_path_factory):
    """BLIP-large with the oracle's weights, fp32 and fp16."""
    import torch

    from edgeseg.calibration.quantize import quantize_bundle
    from edgeseg.export.bundle import Checkpoint, export_bundle
    from tests.minilm import real_folder
    from tests.reference.blip_weights import blip_weights

    folder = tmp_path_factory.mktemp("blip-large")
    path = folder / "model_large_retrieval_flickr.pth"
    torch.save({"model": blip_weights(oracle)}, path)
    made = export_bundle(Checkpoint(path, text_encoder=real_folder()), [CANVAS], folder / "made.bundle")
    path.unlink()
    quantize_bundle(made, lambda *_: None)
    return Bundle.open(made.path)


def cosine(found, wanted):
    found, wanted = np.float64(found).ravel(), np.float64(wanted).ravel()
    return found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted)


def session(bundle, name, precision):
    from edgeseg.backends import get_backend

    spec = bundle.graph(name, precision, CANVAS)
    return get_backend("onnxruntime").open(bundle.graph_files(spec), spec)


def rounds(bundle, golden, precision):
    """Per round the map (T, 441), the logits and the patches that were left out after it."""
    vit, match, score = (session(bundle, name, precision) for name in ("blip_vit", "blip_itm_cam", "score"))
    ids, mask = (golden[name].astype(np.int32) for name in ("input_ids_fed", "attention_mask"))
    pieces = np.zeros((1, 1, ids.shape[1]), np.float32)
    pieces[0, 0, 4:-1] = 1
    keep, found = np.ones((1, 1, 21, 21), np.float32), []
    fixed = {"pieces": pieces, "weight": np.ones(1, np.float32), "patches": np.full(1, 10, np.float32)}
    fixed["class_maps"] = np.zeros((1, 441), np.float32)
    for _ in range(4):
        seen = vit.run({"pixels": golden["image"][None], "keep": keep})
        matched = match.run({"image_embeds": seen["image_embeds"], "input_ids": ids, "attn_mask": mask})
        after = score.run({"cam": matched["cam"], "keep": keep, **fixed})["keep_next"]
        found.append((matched["cam"][0], matched["itm_logits"][0], np.flatnonzero(keep != after)))
        keep = after
    for each in (vit, match, score):
        each.close()
    return found


@pytest.fixture(scope="module")
def exact(bundle, golden):
    return rounds(bundle, golden[0], "fp32")


@pytest.mark.parametrize("number", range(4))
def test_maps_and_dropped_patches_are_those_of_the_authors_code(exact, golden, number):
    cam, logits, dropped = exact[number]
    assert cosine(cam[1:], golden[0]["cam_raw"][number, 0]) >= 0.9999
    np.testing.assert_allclose(logits, golden[0]["itm_logits"][number, 0], atol=2e-3)
    assert number == 3 or dropped.tolist() == sorted(golden[0]["dropped_idx_per_round"][number, 0])


def test_labels_from_the_photo_are_those_of_the_authors_code(bundle, golden):
    arrays, said = golden
    with edgeseg.open(bundle.path, backend="onnxruntime", precision="fp32") as segmenter:
        result = segmenter(arrays["image_u8"], classes=said["classes"][0], settings={"filter": "none"})
    found = np.vectorize(NUMBERS.get)(result.labels)
    assert (found == arrays["labels_voc_blur_aggregate_0"]).mean() >= 0.999


def test_half_precision_keeps_the_map(bundle, golden, exact):
    half = rounds(bundle, golden[0], "fp16")
    assert cosine(half[0][0], exact[0][0]) >= 0.999
    assert set(half[0][2]) == set(exact[0][2])


@pytest.mark.tensorrt
@pytest.mark.parametrize(("name", "fused"), [("blip_vit", 24), ("blip_itm_cam", None), ("score", None)])
def test_the_compiler_takes_the_graph_and_fuses_the_image_encoders_attentions(bundle, tmp_path, name, fused):
    from edgeseg.backends import get_backend
    from edgeseg.engines.compiler import Job
    from edgeseg.engines.layers import summary
    from edgeseg.engines.tensorrt_rtx import TensorRTRTXCompiler

    probe = get_backend("tensorrt_rtx").probe()
    if not probe.builds:
        skip_or_fail("tensorrt_rtx cannot build here")
    compiler, spec = TensorRTRTXCompiler(probe, (TARGET,)), bundle.graph(name, "fp16", CANVAS)
    target = tmp_path / "made.engine"
    layers = summary(compiler.compile(Job(bundle.graph_files(spec), spec, target, tmp_path), lambda *_: None).layers)
    assert target.stat().st_size > 1000
    assert layers["layers"] > 0
    assert fused is None or layers["fused_attentions"] == fused
