"""Small models through the whole export, and back through real onnxruntime."""

import copy
import errno
import json

import numpy as np
import pytest
import torch

import edgeseg
from edgeseg.bundle import Bundle
from edgeseg.chain import Chain, Link
from edgeseg.cli import main
from edgeseg.errors import BundleError, InputError, StorageError
from edgeseg.export import bundle as module
from edgeseg.export import ebseg, onnx_file
from edgeseg.export.bundle import export_bundle
from edgeseg.export.digest import file_digest
from edgeseg.export.recipe import preset
from edgeseg.export.reference import labels, reference_image
from edgeseg.preprocess import preprocess
from edgeseg.schema import size_text
from tests.export.small import EMBEDDING, small_config, small_state, write_small

pytestmark = [pytest.mark.torch, pytest.mark.onnx]

CANVAS = {"b": (96, 160), "l": (128, 224)}


@pytest.fixture(scope="module")
def model():
    """Gives the torch model that the small bundle was made from."""
    made = {}

    def give(like):
        if like not in made:
            recipe = preset(f"ebseg-{like}")
            made[like] = ebseg.load(None, small_state(small_config(like)), recipe), recipe
        return made[like]

    return give


def session(bundle, name, canvas=None):
    from edgeseg.backends import get_backend

    spec = bundle.graph(name, "fp32", canvas)
    return get_backend("onnxruntime", 1).open(bundle.graph_files(spec), spec)


def run(bundle, name, feed, canvas=None):
    """Outputs of one graph on onnxruntime, by name; the session checks names, shapes and types."""
    opened = session(bundle, name, canvas)
    spec = bundle.graph(name, "fp32", canvas)
    given = {item.name: opened.upload(np.ascontiguousarray(feed[item.name])) for item in spec.inputs}
    made = {key: opened.download(value) for key, value in opened.run(given).items()}
    opened.close()
    return made


def vocabulary(classes):
    random = np.random.Generator(np.random.PCG64(classes))
    text = random.standard_normal((classes, EMBEDDING)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    return {"text": text, "overlap": (random.random(classes) < 0.5).astype(np.float32)}


def by_torch(made, canvas, classes):
    """Every tensor of the chain, on an image that is in no reference file; `made` is what `model` gives."""
    model, recipe = made
    image = reference_image(canvas, 9)
    values = {
        name: torch.from_numpy(preprocess(image, canvas, transform, canvas))
        for name, transform in ebseg.transforms(recipe).items()
    }
    values |= {name: torch.from_numpy(array) for name, array in vocabulary(classes).items()}
    for plan in [*ebseg.graphs(model, recipe, canvas), ebseg.score_graph(model)]:
        values.update(plan.run(values))
    return {name: value.numpy() for name, value in values.items()}


def assert_close(found, wanted, name):
    assert found.shape == wanted.shape, name
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max(), name


def exactly(made, canvas, values):
    """What torch makes of each graph's float32 inputs in float64, by name."""
    model, recipe = copy.deepcopy(made[0]).double(), made[1]
    inputs = {name: torch.from_numpy(array).double() for name, array in values.items()}
    plans = [*ebseg.graphs(model, recipe, canvas), ebseg.score_graph(model)]
    return {name: value.numpy() for plan in plans for name, value in plan.run(inputs).items()}


@pytest.mark.parametrize("like", ["b", "l"])
def test_each_graph_is_as_near_to_exact_arithmetic_as_torch(small_bundle, model, like):
    """For "l" neither axis of the masks is a multiple of CLIP's grid, so its pooling windows are not uniform.

    The head multiplies any rounding by hundreds on random weights, so torch's own distance from float64 is the measure.
    """
    bundle, canvas = small_bundle(like), CANVAS[like]
    wanted = by_torch(model(like), canvas, 7)
    exact = exactly(model(like), canvas, wanted)
    for name in ("sam", "clip_trunk", "head", "clip_tail", "score"):
        for tensor, found in run(bundle, name, wanted, None if name == "score" else canvas).items():
            rounding = np.abs(wanted[tensor] - exact[tensor]).max()
            limit = 8 * rounding + 1e-6 * np.abs(exact[tensor]).max()
            assert np.abs(found - exact[tensor]).max() <= limit, tensor


def test_the_small_l_pools_unevenly():
    height, width = (extent // 4 for extent in CANVAS["l"])
    grid = [extent // 14 for extent in ebseg.clip_input(CANVAS["l"], 0.7)]
    assert height % grid[0]
    assert width % grid[1]


@pytest.mark.parametrize("classes", [1, 2, 300])
def test_any_number_of_classes_goes_through_the_scoring(small_bundle, model, classes):
    wanted = by_torch(model("b"), CANVAS["b"], classes)
    found = run(small_bundle("b"), "score", wanted)["class_probs"]
    assert found.shape == (1, 10, classes)
    assert_close(found, wanted["class_probs"], "class_probs")


@pytest.mark.parametrize(("count", "length"), [(1, 3), (5, 20), (2, 77), (64, 4)])
def test_texts_of_any_number_and_length_go_through_the_text_graph(small_bundle, model, count, length):
    random = np.random.Generator(np.random.PCG64(length))
    tokens = random.integers(1, 49405, (count, length)).astype(np.int32)
    eot = random.integers(1, length, count).astype(np.int32)
    found = run(small_bundle("b"), "text", {"tokens": tokens, "eot": eot})["text_embedding"]
    wanted = model("b")[0].ov_classifier(torch.from_numpy(tokens), torch.from_numpy(eot)).numpy()
    assert_close(found, wanted, "text_embedding")


@pytest.mark.parametrize("like", ["b", "l"])
def test_verify_accepts_the_bundle(small_bundle, like, capsys):
    assert main(["verify", str(small_bundle(like).path), "--backend", "onnxruntime", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"]
    checked = {check["tensor"] for check in report["tensors"]}
    assert {"image_sam", "image_clip", "sam_5", "attention_bias", "class_probs", "text_embedding"} <= checked
    assert min(check["cosine"] for check in report["tensors"]) >= 0.99999
    assert min(check["agreement"] for check in report["labels"]) >= 0.999


def test_the_bundle_segments_an_image_of_its_size_exactly(small_bundle, model, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names = ["cat", "wooden table", "grass"]
    with edgeseg.open(small_bundle("b").path, "onnxruntime") as segmenter:
        result = segmenter(reference_image(CANVAS["b"], 9), classes=names)
        made = segmenter.vocabulary(names)
    wanted = by_torch(model("b"), CANVAS["b"], 3)
    values = {name: torch.from_numpy(value) for name, value in wanted.items()}
    values |= {"text": torch.tensor(made.embeddings), "overlap": torch.tensor(made.overlap)}
    values |= ebseg.score_graph(model("b")[0]).run(values)
    assert result.labels.shape == CANVAS["b"]
    assert (result.labels == labels(values["mask_logits"], values["class_probs"], CANVAS["b"])).mean() > 0.999


def test_the_wiring_of_the_chain_is_whole(small_bundle):
    bundle = small_bundle("l")
    specs = [bundle.graph(name, "fp32", CANVAS["l"]) for name in ("score", "clip_tail", "head", "clip_trunk", "sam")]
    links = [Link(spec, session(bundle, spec.name, CANVAS["l"])) for spec in specs]
    assert Chain(links).inputs == {"image_sam", "image_clip", "text", "overlap"}


def test_the_manifest_says_what_was_exported(small_bundle):
    bundle = small_bundle("l")
    manifest = bundle.manifest
    assert (manifest.family, manifest.name, manifest.canvases) == ("ebseg", "ebseg-l", (CANVAS["l"],))
    recipe = manifest.recipe
    assert (recipe["queries"], recipe["embedding"], recipe["text_context"], recipe["divisor"]) == (
        10,
        EMBEDDING,
        77,
        32,
    )
    assert recipe["ensemble"] == {"alpha": 0.12, "beta": 0.4, "gamma": 0.6}
    assert (len(recipe["templates"]), recipe["logit_scale"]) == (14, 100.003)
    assert manifest.images["image_clip"].scale == 0.7
    assert manifest.source.sha256 == file_digest(bundle.path.parent / "small-l.pth")
    assert [graph.canvas for graph in manifest.graphs if graph.name in ("score", "text")] == [None, None]
    assert set(manifest.reference) == {size_text(CANVAS["l"]), "text"}
    bundle.verify()


def test_repeated_sizes_are_exported_once_and_progress_reaches_its_end(tmp_path):
    steps = []
    checkpoint = write_small(tmp_path, text=False)
    bundle = export_bundle(checkpoint, [(64, 64), (64, 64)], tmp_path / "b", progress=lambda *step: steps.append(step))
    assert bundle.manifest.canvases == ((64, 64),)
    assert [done for _, done, _ in steps] == list(range(len(steps)))
    assert {total for _, _, total in steps} == {len(steps) - 1}
    assert "text" not in {graph.name for graph in bundle.manifest.graphs}


@pytest.mark.parametrize("step", [0, 2, pytest.param(6, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["old.bundle", "new.bundle"])
def test_ctrl_c_leaves_everything_as_it_was(place, step, name):
    folder, checkpoint, unchanged = place

    def stop(_, done, __):
        if done == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_bundle(checkpoint, [(64, 64)], folder / name, overwrite=True, progress=stop)
    unchanged()


@pytest.mark.parametrize("name", ["old.bundle", "new.bundle"])
@pytest.mark.parametrize("where", ["weights", pytest.param("reference", marks=pytest.mark.slow)])
def test_a_full_disk_leaves_everything_as_it_was(place, monkeypatch, where, name):
    folder, checkpoint, unchanged = place

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    target = (onnx_file.WeightFile, "add") if where == "weights" else (module, "write_case")
    monkeypatch.setattr(*target, full)
    with pytest.raises(StorageError, match=f"{name}: the disk is full"):
        export_bundle(checkpoint, [(64, 64)], folder / name, overwrite=True)
    unchanged()


def test_a_bundle_that_is_there_is_refused_without_overwrite(place):
    folder, checkpoint, unchanged = place
    with pytest.raises(BundleError, match="--overwrite"):
        export_bundle(checkpoint, [(64, 64)], folder / "old.bundle")
    unchanged()


@pytest.mark.slow
def test_overwriting_leaves_only_the_new_bundle(place):
    folder, checkpoint, _ = place
    export_bundle(checkpoint, [(64, 96)], folder / "old.bundle", overwrite=True)
    bundle = Bundle.open(folder / "old.bundle")
    bundle.verify()
    assert bundle.manifest.canvases == ((64, 96),)
    assert sorted(path.name for path in folder.iterdir()) == ["old.bundle", "small-b.pth"]


def test_a_size_that_does_not_fit_is_refused_before_anything_is_read(place):
    folder, checkpoint, unchanged = place
    checkpoint.path.write_bytes(checkpoint.path.read_bytes())
    with pytest.raises(InputError, match=r"60x64.*multiples of 32; use --size 64x64"):
        export_bundle(module.Checkpoint(folder / "missing.pth"), [(60, 64)], folder / "new.bundle")
    unchanged()
