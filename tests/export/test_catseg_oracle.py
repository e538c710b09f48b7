"""CAT-Seg at full size, exported and run on onnxruntime, against what the authors' code computed."""

import functools
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest

import edgeseg
from edgeseg.vocabulary import Vocabulary
from tests.reference.catseg import golden, write_checkpoint

pytestmark = [pytest.mark.torch, pytest.mark.onnx, pytest.mark.slow]

CANVASES = {False: (384, 384), True: (640, 640)}
RUNS = {  # run: what it is for
    "vitb_voc20_full": "one view",
    "vitb_c300_full": "more than 256 classes",
}


@pytest.fixture(scope="module")
def bundles(shared, tmp_path_factory):
    """Gives the bundle of a pooling, for one view."""
    from edgeseg.export import bundle as module
    from edgeseg.export.recipe import preset

    folder = tmp_path_factory.mktemp("catseg")
    path = write_checkpoint(shared, folder)

    @functools.cache
    def give(pooling):
        recipe = preset("catseg-b")
        recipe = replace(recipe, options=recipe.options | {"pooling": pooling})
        sizes = [CANVASES[False]]
        with patch.object(module, "choose_recipe", lambda *_: recipe), patch.object(module, "IMAGES", 1):
            return module.export_bundle(module.Checkpoint(path), sizes, folder / f"pool{pooling}.bundle")

    return give


@pytest.fixture(scope="module")
def ran(bundles, shared):
    """Gives (golden arrays, evidence, result, description) of a run, with the authors' own text features."""

    @functools.cache
    def give(run):
        arrays, meta = golden(shared, run)
        words = Vocabulary(
            tuple(f"{i} {name}" for i, name in enumerate(meta["classes"])),
            arrays["text_features"],
            np.zeros(len(meta["classes"]), np.float32),
        )
        image = np.ascontiguousarray(arrays["image"].transpose(1, 2, 0))
        with edgeseg.open(bundles(meta["pooling"][0]).path, "onnxruntime", "fp32") as segmenter:
            result = segmenter(image, words, canvas=CANVASES[meta["sliding_window"]])
        return arrays, result, meta

    return give


@pytest.mark.parametrize("run", RUNS)
def test_logits_are_the_authors(ran, run):
    arrays, result, meta = ran(run)
    found = result.masks.arrays()
    wanted = arrays["agg_logits"]
    for place, view in enumerate(meta["windows_saved"]):
        mine, theirs = found["logits"][view], wanted[place][found["picked"][view]]
        if "topk_mask" in arrays:
            assert set(found["picked"][view]) == set(np.flatnonzero(arrays["topk_mask"][view]))
            mine = mine[:, ::4, ::4]
        assert mine.shape == theirs.shape
        assert np.abs(mine - theirs).max() <= 1e-3 * theirs.std()


@pytest.mark.parametrize("run", RUNS)
def test_scores_are_the_authors(ran, run):
    arrays, result, _ = ran(run)
    scores = np.zeros((375, 500, len(result.names)), np.float32)
    for y, x, tile in result.masks.scores():
        scores[y, x] = tile
    found, wanted = scores[::16, ::16].transpose(2, 0, 1), arrays["scores_s16"]
    assert np.abs(found - wanted).max() <= 1e-3
    best = np.sort(wanted, axis=0)[-2:]
    clear = best[1] - best[0] > 1e-3
    assert clear.mean() > 0.6  # where both scores are nearly 1, their order says little
    assert np.array_equal(found.argmax(0)[clear], wanted.argmax(0)[clear])
