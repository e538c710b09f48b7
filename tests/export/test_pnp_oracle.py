"""PnP-OVSS at full size, fp32 on onnxruntime, against what the authors' code computed."""

import json

import numpy as np
import pytest

import edgeseg
from edgeseg.compose import NONE_LABEL

pytestmark = [pytest.mark.torch, pytest.mark.onnx, pytest.mark.minilm, pytest.mark.slow]

CANVAS = (336, 336)
NUMBERS = {0: 9, 1: 15, 2: 16, 3: 17, NONE_LABEL: 0}  # chair, person, pottedplant, sheep in VOC


@pytest.fixture(scope="module")
def oracle(shared):
    return shared / "oracle/pnp"


@pytest.fixture(scope="module")
def golden(oracle):
    return dict(np.load(oracle / "single0.npz")), json.loads((oracle / "single0.json").read_text())


@pytest.fixture(scope="module")
def bundle(oracle, tmp_path_factory):
    """BLIP-large with the oracle's weights."""
    import torch

    from edgeseg.export.bundle import Checkpoint, export_bundle
    from tests.minilm import real_folder
    from tests.reference.blip_weights import blip_weights

    folder = tmp_path_factory.mktemp("blip-large")
    path = folder / "model_large_retrieval_flickr.pth"
    torch.save({"model": blip_weights(oracle)}, path)
    made = export_bundle(Checkpoint(path, text_encoder=real_folder()), [CANVAS], folder / "made.bundle")
    path.unlink()
    return made


def cosine(found, wanted):
    found, wanted = np.float64(found).ravel(), np.float64(wanted).ravel()
    return found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted)


def session(bundle, name):
    from edgeseg.backends import get_backend

    spec = bundle.graph(name, "fp32", CANVAS)
    return get_backend("onnxruntime").open(bundle.graph_files(spec), spec)


def rounds(bundle, golden):
    """Per round the map (T, 441), the logits and the patches that were left out after it."""
    vit, match, score = (session(bundle, name) for name in ("blip_vit", "blip_itm_cam", "score"))
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
    return rounds(bundle, golden[0])


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
