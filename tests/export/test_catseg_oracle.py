"""CAT-Seg at full size on onnxruntime against what the authors' code computed, and compiled for a GPU."""

import functools
import json
import shutil
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest

import edgeseg
from edgeseg.cli import main
from edgeseg.vocabulary import Vocabulary
from tests.reference.catseg import golden, write_checkpoint

pytestmark = [pytest.mark.torch, pytest.mark.onnx, pytest.mark.slow]

ONE, FIVE = (384, 384), (640, 640)
RUNS = {  # run: what it is for
    "vitb_voc20_full": "one view",
    "vitb_voc20_slide": "sliding windows",
    "vitb_c40_full_pool2": "pooling in front of the class attention, names with synonyms",
    "vitb_c300_full": "more than 256 classes",
}
LIMIT = 1e-3


@pytest.fixture(scope="module")
def bundles(shared, tmp_path_factory):
    """Gives the bundle of a pooling and a canvas."""
    from edgeseg.export import bundle as module
    from edgeseg.export.recipe import preset

    folder = tmp_path_factory.mktemp("catseg")
    path = write_checkpoint(shared, folder)

    @functools.cache
    def give(pooling, canvas):
        recipe = preset("catseg-b")
        recipe = replace(recipe, options=recipe.options | {"pooling": pooling})
        output = folder / f"{pooling}-{canvas[0]}.bundle"
        with patch.object(module, "choose_recipe", lambda *_: recipe), patch.object(module, "IMAGES", 1):
            return module.export_bundle(module.Checkpoint(path), [canvas], output)

    yield give
    shutil.rmtree(folder)  # gigabytes


def place(meta):
    """Pooling and canvas of a run."""
    return meta["pooling"][0], FIVE if meta["sliding_window"] else ONE


def photo(arrays):
    return np.ascontiguousarray(arrays["image"].transpose(1, 2, 0))


def close(found, wanted):
    return found.shape == wanted.shape and np.abs(found - wanted).max() <= LIMIT * wanted.std()


@pytest.fixture(scope="module")
def ran(bundles, shared):
    """Gives (golden arrays, result, description) of a run, with the authors' own text features."""

    @functools.cache
    def give(run):
        arrays, meta = golden(shared, run)
        words = Vocabulary(
            tuple(f"{i} {name}" for i, name in enumerate(meta["classes"])),
            arrays["text_features"],
            np.zeros(len(meta["classes"]), np.float32),
        )
        pooling, canvas = place(meta)
        with edgeseg.open(bundles(pooling, canvas).path, "onnxruntime", "fp32") as segmenter:
            result = segmenter(photo(arrays), words, canvas=canvas)
        return arrays, result, meta

    return give


@pytest.fixture(scope="module")
def scored(ran):
    """Gives (C, 24, 32) scores at every 16th pixel, and (375, 500) by how much the best class wins."""

    @functools.cache
    def give(run):
        _, result, _ = ran(run)
        height, width = result.labels.shape
        scores, margin = np.zeros((height, width, len(result.names)), np.float32), np.zeros((height, width))
        for y, x, tile in result.masks.scores():
            scores[y, x] = tile
            best = np.partition(tile, -2, axis=2)[..., -2:]
            margin[y, x] = best[..., 1] - best[..., 0]
        return scores[::16, ::16].transpose(2, 0, 1).copy(), margin

    return give


@pytest.mark.parametrize("run", RUNS)
def test_logits_are_the_authors(ran, run):
    arrays, result, meta = ran(run)
    found = result.masks.arrays()
    wanted = arrays["agg_logits"]
    assert len(found["logits"]) == meta["n_windows"]
    for number, view in enumerate(meta["windows_saved"]):
        mine, theirs = found["logits"][view], wanted[number][found["picked"][view]]
        if "topk_mask" in arrays:
            assert set(found["picked"][view]) == set(np.flatnonzero(arrays["topk_mask"][view]))
            mine = mine[:, ::4, ::4]
        assert len(mine) == min(len(meta["classes"]), 256)
        assert close(mine, theirs)


@pytest.mark.parametrize("run", RUNS)
def test_scores_are_the_authors(ran, scored, run):
    found, wanted = scored(run)[0], ran(run)[0]["scores_s16"]
    assert np.abs(found - wanted).max() <= LIMIT
    best = np.sort(wanted, axis=0)[-2:]
    clear = best[1] - best[0] > LIMIT
    assert clear.mean() > 0.6
    assert np.array_equal(found.argmax(0)[clear], wanted.argmax(0)[clear])


@pytest.mark.parametrize("run", RUNS)
def test_the_label_map_is_the_authors(ran, scored, run):
    arrays, result, _ = ran(run)
    equal, margin = result.labels == arrays["labels"], scored(run)[1]
    assert equal[margin > LIMIT].all()
    assert equal.mean() > 0.99


@pytest.mark.parametrize("run", RUNS)
def test_encoder_maps_are_the_authors(bundles, shared, run):
    from edgeseg.backends import get_backend
    from edgeseg.pipelines import get_pipeline

    arrays, meta = golden(shared, run)
    pooling, canvas = place(meta)
    bundle = bundles(pooling, canvas)
    spec = bundle.graph("clip", "fp32", canvas)
    feed = get_pipeline(bundle.manifest).image_feed(photo(arrays), (375, 500), canvas)
    session = get_backend("onnxruntime").open(bundle.graph_files(spec), spec)
    made = session.run({name: session.upload(value) for name, value in feed.items()})
    found = {name: session.download(value)[meta["windows_saved"]] for name, value in made.items()}
    session.close()
    assert close(found["features"], arrays["clip_dense"][:, 1:])
    assert close(found["guidance_2"][:, :, ::4, ::4], arrays["res4_s4"])
    assert close(found["guidance_4"][:, :, ::8, ::8], arrays["res5_s8"])


@pytest.mark.parametrize("run", ["vitb_voc20_full", "vitb_c40_full_pool2"])
def test_class_embeddings_are_the_authors(bundles, shared, tmp_path, monkeypatch, run):
    """From names, through tokenizer, template and text graph; of synonyms only the first is prompted."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arrays, meta = golden(shared, run)
    with edgeseg.open(bundles(*place(meta)).path, "onnxruntime", "fp32") as segmenter:
        made = segmenter.vocabulary(meta["classes"])
    assert close(made.embeddings, arrays["text_features"])


@pytest.mark.tensorrt
def test_nvidias_compiler_fuses_every_attention(bundles, capsys):
    """In fp16, ahead of time. CLIP's last block has no attention; the aggregation has four per share of the classes."""
    bundle = str(bundles(1, ONE).path)
    assert main(["quantize", bundle, "--precision", "fp16"]) == 0
    capsys.readouterr()
    words = ["--backend", "tensorrt_rtx", "--target", "sm89", "--precision", "fp16"]
    assert main(["build", bundle, *words, "--json"]) == 0
    engines = json.loads(capsys.readouterr().out)["engines"]
    fused = {engine["engine"]["graph"]: engine["layers"]["fused_attentions"] for engine in engines}
    assert (fused["clip"], fused["aggregate"]) == (11, 16)
