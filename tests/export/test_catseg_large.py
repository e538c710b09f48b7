"""CAT-Seg with ViT-L/14 at full size on onnxruntime, against open_clip's encoder and the plain aggregation.

There are golden tensors of the authors' code for ViT-B/16 only; the plain formulation is held to the same networks.
"""

import shutil
from unittest.mock import patch

import numpy as np
import pytest
import torch

import edgeseg
from edgeseg.export import bundle as module
from edgeseg.export import lmseg
from edgeseg.export.nets.lmseg import ClipGraph
from edgeseg.export.recipe import preset
from edgeseg.pipelines import get_pipeline
from edgeseg.vocabulary import Vocabulary
from tests.export.small_lmseg import small_config, small_recipe, small_state
from tests.reference.catseg_plain import aggregate, clip_maps
from tests.reference.lmseg_weights import full_weights

pytestmark = [pytest.mark.torch, pytest.mark.onnx]

CANVAS, CLASSES, LIMIT = (384, 384), 12, 1e-3


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """(ours, theirs), tensors by name, of one image."""
    folder, random = tmp_path_factory.mktemp("large"), np.random.Generator(np.random.PCG64(0))
    state = full_weights("catseg-l")
    torch.save(state, folder / "a.pth")
    with (
        patch.object(module, "IMAGES", 1),
        patch.object(module, "CLASSES", 8),
    ):  # which is not looked at
        bundle = module.export_bundle(module.Checkpoint(folder / "a.pth"), [CANVAS], folder / "large.bundle")
    assert bundle.manifest.name == "catseg-l"
    photo = np.kron(random.integers(0, 256, (15, 20, 3)), np.ones((25, 25, 1))).astype(np.uint8)
    text = random.standard_normal((CLASSES, 768)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    words = Vocabulary(tuple(f"class {i}" for i in range(CLASSES)), text, np.zeros(CLASSES, np.float32))
    with edgeseg.open(bundle.path, "onnxruntime", "fp32") as segmenter:
        logits = segmenter.masks(photo, words).arrays()["logits"][0]
    feed = torch.from_numpy(get_pipeline(bundle.manifest).image_feed(photo, photo.shape[:2], CANVAS)["image_clip"])
    shutil.rmtree(folder)  # gigabytes
    model = lmseg.load(folder, state, preset("catseg-l"))
    with torch.no_grad():
        features, early, late = clip_maps(model, feed)
        return logits, aggregate(model.aggregation, features, early, late, torch.from_numpy(text)).numpy()


def test_small_encoder_maps_are_open_clips():
    model = lmseg.load(None, small_state(small_config()), small_recipe())
    image = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = ClipGraph(model)(image), clip_maps(model, image)
    for mine, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-5 * float(wanted.std()))


@pytest.mark.slow
def test_logits_are_those_of_the_plain_formulation(ran):
    ours, theirs = ran
    print(f"largest difference {np.abs(ours - theirs).max() / theirs.std():.1e} of the standard deviation")
    assert ours.shape == theirs.shape == (CLASSES, 96, 96)
    assert np.abs(ours - theirs).max() <= LIMIT * theirs.std()


@pytest.mark.slow
def test_every_clear_label_is_that_of_the_plain_formulation(ran):
    ours, theirs = ran
    best = np.sort(theirs, axis=0)[-2:]
    clear = best[1] - best[0] > LIMIT * theirs.std()
    assert clear.mean() > 0.9
    assert (ours.argmax(0) == theirs.argmax(0))[clear].all()
    assert len(np.unique(ours.argmax(0))) > 1
