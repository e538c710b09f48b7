"""Graphs of full size on onnxruntime: EBSeg-B against what the authors' code computed, EBSeg-L against torch."""

import dataclasses

import numpy as np
import pytest

import edgeseg
from edgeseg.preprocess import preprocess
from edgeseg.vocabulary import Vocabulary
from edgeseg.vocabulary.overlap import training_overlap

pytestmark = [pytest.mark.torch, pytest.mark.onnx, pytest.mark.slow]

CANVAS = (320, 448)
UNEVEN = (224, 256)
MEMORY_LIMIT_KIB = 12 << 20


def cosine(found, wanted):
    found, wanted = np.float64(found).ravel(), np.float64(wanted).ravel()
    return found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted)


def run(bundle, canvas, feed, names):
    """Run some graphs one after the other on onnxruntime; every tensor that was given or made, by name."""
    from edgeseg.backends import get_backend

    values = dict(feed)
    for name in names:
        spec = bundle.graph(name, "fp32", canvas)
        session = get_backend("onnxruntime").open(bundle.graph_files(spec), spec)
        given = {item.name: session.upload(np.ascontiguousarray(values[item.name])) for item in spec.inputs}
        values.update({key: session.download(value) for key, value in session.run(given).items()})
        session.close()
    return values


@pytest.fixture(scope="module")
def golden(shared):
    return dict(np.load(shared / "oracle/ebseg/ebseg_b.npz"))


@pytest.fixture(scope="module")
def classes():
    from edgeseg.vocabulary.classes import dataset_classes

    return dataset_classes("ade20k-150")


@pytest.fixture(scope="module")
def image(golden):
    return np.ascontiguousarray(golden["image"].transpose(1, 2, 0))


@pytest.fixture(scope="module")
def scores(full_bundle, golden, classes, image):
    """Per-class scores at every 16th pixel, (150, 20, 28), through the runtime, and its masks."""
    bundle = full_bundle("b")[0]
    training = frozenset(bundle.manifest.recipe["training_classes"])
    words = Vocabulary(classes.names, golden["text"][:-1].copy(), training_overlap(classes, training))
    with edgeseg.open(bundle.path, "onnxruntime", "fp32") as segmenter:
        masks = segmenter.masks(image, classes=words)
    assert masks.placement.valid == masks.placement.canvas == CANVAS
    found = np.zeros((*CANVAS, len(words.names)), np.float32)
    for rows, columns, tile in masks.scores():
        found[rows, columns] = tile
    return found[::16, ::16].transpose(2, 0, 1), masks


@pytest.fixture(scope="module")
def tensors(full_bundle, golden, image):
    """Everything else the oracle has, as the exported graphs make it."""
    bundle = full_bundle("b")[0]
    transforms = bundle.manifest.images
    feed = {name: preprocess(image, CANVAS, transform, CANVAS) for name, transform in transforms.items()}
    return run(bundle, CANVAS, feed, ["sam", "clip_trunk", "head", "clip_tail"])


def test_scores_are_the_authors(scores, golden):
    found, wanted = scores[0], golden["logits_s16"]
    assert np.abs(found - wanted).max() <= 2e-3
    assert cosine(found, wanted) >= 0.9999


def test_each_point_goes_to_the_authors_class(scores, golden):
    """With stand-in weights one class wins everywhere; without its mean each class wins where it is most at home."""
    found, wanted = (x - x.mean(axis=(1, 2), keepdims=True) for x in (scores[0], golden["logits_s16"]))
    assert len(np.unique(wanted.argmax(0))) == 8
    assert (found.argmax(0) == wanted.argmax(0)).all()


def test_masks_and_embeddings_are_the_authors(tensors, scores, golden):
    for found, name in [
        (scores[1].logits[:, ::4, ::4], "pred_masks_s4"),
        (tensors["mask_logits"][0, :, ::4, ::4], "pred_masks_s4"),
        (tensors["embedding_a"][0], "mask_embeds"),
        (tensors["embedding_b"][0], "mask_embeds_clip"),
    ]:
        assert found.shape == golden[name].shape
        assert cosine(found, golden[name]) >= 0.9999, name


@pytest.fixture(scope="module")
def weights():
    """Those of the fusion and of CLIP's tail, which stand between the exported tensors and the oracle's."""
    import torch

    from tests.reference.weights import ebseg_weights

    made = ebseg_weights("b", 0, lambda key: "clip_fusion_layers" in key or key.startswith("clip_rec_head"))
    return {name: torch.from_numpy(value) for name, value in made.items()}


def test_sam_maps_are_the_authors(tensors, golden, weights):
    """The oracle took res3 to res5 after CLIP's maps had been added to them in place, so the test adds them, too."""
    import torch

    from tests.reference.ebseg_original import channel_norm
    from tests.reference.part import Part, resize

    taps = [tensors[f"sam_{i}"] for i in (2, 5, 8, 11)]
    clip = [None, tensors["clip_3"], tensors["clip_6"], tensors["clip_tokens"][:, 1:]]
    for i, (tap, tokens, scale) in enumerate(zip(taps, clip, (4, 2, 1, 0.5), strict=True)):
        grid = torch.from_numpy(tap).transpose(1, 2).unflatten(2, (20, 28))
        wanted = golden[f"sam_res{i + 2}"]
        made = torch.nn.functional.interpolate(grid, scale_factor=scale, mode="bilinear") if scale != 1 else grid
        if tokens is not None:
            layer = Part(weights, f"sem_seg_head.clip_fusion_layers.{i - 1}.")
            maps = torch.from_numpy(tokens).transpose(1, 2).unflatten(2, (10, 14))
            made = made + resize(layer.conv("1", channel_norm(layer.at("0"), maps)), (made.shape[2], made.shape[3]))
        found = made[0, ::16, ::4, ::4].numpy()
        assert found.shape == wanted.shape
        assert cosine(found, wanted) >= 0.9999


def test_the_dense_surgery_map_is_the_authors(full_bundle, tensors, golden):
    """The tail gives means of the map; a mask of one cell gives the map itself, a hundred cells a run."""
    cells = [(row, column) for row in range(0, 10, 2) for column in range(0, 14, 2)]
    masks = np.full_like(tensors["mask_logits"], -1.0)
    for query, (row, column) in enumerate(cells):
        masks[0, query, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = 1.0
    made = run(full_bundle("b")[0], CANVAS, tensors | {"mask_logits": masks}, ["clip_tail"])["embedding_d"]
    found = made[0, : len(cells)].T.reshape(golden["clip_final_s2"].shape)
    assert cosine(found, golden["clip_final_s2"]) >= 0.9999


def test_class_embeddings_are_the_authors(full_bundle, golden, classes, tmp_path, monkeypatch):
    """Every fifth class, with all its templates, through tokenizer, text graph and averaging."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    some = dataclasses.replace(classes, names=classes.names[::5], synonyms=classes.synonyms[::5])
    with edgeseg.open(full_bundle("b")[0].path, "onnxruntime", "fp32") as segmenter:
        made = segmenter.vocabulary(some)
    wanted = golden["text"][:-1:5]
    assert np.abs(made.embeddings - wanted).max() <= 1e-5
    assert min(map(cosine, made.embeddings, wanted)) >= 0.9999


@pytest.mark.parametrize("variant", ["b", "l"])
def test_export_stays_below_the_memory_limit(full_bundle, variant):
    assert full_bundle(variant)[1] < MEMORY_LIMIT_KIB


def test_large_graphs_give_what_torch_gave(full_bundle):
    """Uneven pooling; the bundle's reference tensors are torch's, whole label maps and samples of all else."""
    from edgeseg.backends import get_backend
    from edgeseg.chains import Chains
    from edgeseg.pipelines import get_pipeline
    from edgeseg.reference import check_chains, check_text
    from edgeseg.selection import Request, choose

    bundle = full_bundle("l")[0]
    pipeline = get_pipeline(bundle.manifest)
    chains = Chains(bundle, choose(bundle, pipeline.graphs, Request("onnxruntime", "fp32")), pipeline.graphs)
    report = check_chains(bundle, pipeline, chains.chain, [UNEVEN], "fp32")
    chains.close()
    text = bundle.graph("text", "fp32", None)
    checks = (
        report.tensors
        + check_text(bundle, text, get_backend("onnxruntime").open(bundle.graph_files(text), text)).tensors
    )
    assert {"sam_11", "clip_12", "attention_bias", "class_probs", "text_embedding"} <= {c.tensor for c in checks}
    assert min(check.cosine for check in checks) >= 0.9999
    assert min(check.agreement for check in report.labels) >= 0.999
    grid = bundle.graph("clip_tail", "fp32", UNEVEN).inputs[2].shape[-1]
    assert (grid, UNEVEN[0] // 4 % 11, UNEVEN[1] // 4 % 12) == (11 * 12, 1, 4)
