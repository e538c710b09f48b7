"""Small LMSeg and CAT-Seg models through the whole export, and back through real onnxruntime."""

import inspect
import json
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image

import edgeseg
from edgeseg.bundle import Bundle
from edgeseg.chain import Chain, Link
from edgeseg.cli import main
from edgeseg.errors import CheckpointError, InputError
from edgeseg.export import bundle as module
from edgeseg.export import lmseg
from edgeseg.export.bundle import Checkpoint, choose_recipe, export_bundle
from edgeseg.export.nets.lmseg import LMSeg
from edgeseg.export.recipe import preset
from edgeseg.pipelines import get_pipeline
from edgeseg.placement import Placement
from edgeseg.schema import size_text
from edgeseg.vocabulary import Vocabulary
from tests.export.small_lmseg import EMBEDDING, SAM, small_config, small_recipe, small_state, write_small
from tests.reference.lmseg_weights import MODELS, full_config
from tests.test_docs import keys, section

pytestmark = [pytest.mark.torch, pytest.mark.onnx]

ONE, FIVE = (384, 384), (640, 640)
KINDS = {"catseg": {}, "lmseg": {"sam": SAM}}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Gives the bundle of a small CAT-Seg with both canvases, or of a small LMSeg with one."""
    made = {}

    def give(kind) -> Bundle:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            checkpoint, recipe = write_small(folder, **KINDS[kind])
            sizes = [ONE, FIVE] if kind == "catseg" else [ONE]
            with patch.object(module, "choose_recipe", lambda *_: recipe):
                made[kind] = export_bundle(checkpoint, sizes, folder / "small.bundle")
        return made[kind]

    return give


def model(kind):
    sizes = KINDS[kind]
    return lmseg.load(None, small_state(small_config(**sizes)), small_recipe(**sizes))


def vocabulary(classes):
    text = np.random.Generator(np.random.PCG64(classes)).standard_normal((classes, EMBEDDING)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    return Vocabulary(tuple(f"class {i}" for i in range(classes)), text, np.zeros(classes, np.float32))


def photo(height=300, width=420):
    return np.random.Generator(np.random.PCG64(height)).integers(0, 256, (height, width, 3)).astype(np.uint8)


def run(bundle, canvas, feed):
    """Every tensor of the chain on onnxruntime."""
    from edgeseg.backends import get_backend

    backend = get_backend("onnxruntime")
    specs = [bundle.graph(name, "fp32", canvas) for name in get_pipeline(bundle.manifest).graphs]
    chain = Chain([Link(spec, backend.open(bundle.graph_files(spec), spec)) for spec in specs])
    return chain.run(feed, {tensor.name for spec in specs for tensor in spec.outputs}).tensors


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "canvas", "classes"),
    [("catseg", ONE, 1), ("catseg", ONE, 7), ("catseg", ONE, 300), ("catseg", FIVE, 5), ("lmseg", ONE, 6)],
)
def test_the_graphs_give_what_torch_gives_for_any_number_of_classes(bundles, kind, canvas, classes):
    bundle, words = bundles(kind), vocabulary(classes)
    pipeline = get_pipeline(bundle.manifest)
    feed = pipeline.image_feed(photo(), (300, 420), canvas) | pipeline.vocabulary_feed(words.embeddings, words.overlap)
    found = run(bundle, canvas, feed)
    values = {name: torch.tensor(array) for name, array in feed.items()}
    with torch.no_grad():
        for plan in lmseg.plans(model(kind), small_recipe(**KINDS[kind]), canvas):
            values |= plan.run(values)
    assert found["logits"].shape[:2] == (lmseg.views(canvas), min(classes, 256))
    for name, array in found.items():
        wanted = values[name].numpy()
        assert np.abs(array - wanted).max() <= 1e-4 * np.abs(wanted).max(), name


@pytest.mark.slow
def test_verify_passes_and_a_photo_is_segmented(bundles):
    bundle = bundles("catseg")
    with edgeseg.open(bundle.path, "onnxruntime", "fp32") as segmenter:
        result = segmenter(photo(), classes=vocabulary(9))
        assert result.masks.placement.canvas == FIVE
        assert (result.labels.shape, result.exact, sum(result.areas.values())) == ((300, 420), True, 300 * 420)
        found = np.zeros((300, 420), np.uint16)
        for y, x, scores in result.masks.scores():
            found[y, x] = scores.argmax(2)
        assert (found == result.labels).mean() > 0.999  # bands of another height round otherwise
        best = segmenter(photo(), vocabulary(9), threshold=0).scores
        assert best is not None
        threshold = float(np.median(best))
        assert 0.4 < segmenter(photo(), vocabulary(9), threshold=threshold).none_pixels / (300 * 420) < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("canvas", [ONE, FIVE])
def test_labels_are_those_that_torch_composes(bundles, canvas):
    """The reference's labels are made by torch, window by window; they are of the canvas's size."""
    bundle = bundles("catseg")
    stored = bundle.reference(size_text(canvas))[0]
    pipeline = get_pipeline(bundle.manifest)
    feed = pipeline.image_feed(stored["image"], canvas, canvas)
    tensors = run(bundle, canvas, feed | pipeline.vocabulary_feed(stored["text"], stored["overlap"]))
    found = pipeline.evidence(tensors, (), Placement(canvas, canvas, canvas, True, None)).compose().labels
    decided = stored["labels"] != 65535
    assert decided.mean() > 0.9
    assert len(np.unique(found)) > 2
    assert (found[decided] == stored["labels"][decided]).mean() > 0.999


@pytest.mark.slow
def test_early_rejection_keeps_the_classes_that_are_most_similar_anywhere(bundles):
    bundle, words = bundles("catseg"), vocabulary(30)
    with edgeseg.open(bundle.path, "onnxruntime", "fp32") as segmenter:
        full = segmenter.masks(photo(), words)
        some = segmenter.masks(photo(), words, top_k=4)
        every = segmenter.masks(photo(), words, top_k=30)
    picked = some.arrays()["picked"]
    assert picked.shape == (5, 4)
    assert (picked == picked[0]).all()
    assert np.allclose(full.arrays()["logits"], every.arrays()["logits"], rtol=0, atol=1e-4)
    pipeline = get_pipeline(bundle.manifest)
    feed = pipeline.image_feed(photo(), (300, 420), FIVE) | pipeline.vocabulary_feed(words.embeddings, words.overlap)
    features = run(bundle, FIVE, feed)["features"]
    features /= np.linalg.norm(features, axis=2, keepdims=True)
    best = (features @ words.embeddings.T).max((0, 1))
    assert picked[0].tolist() == sorted(np.argsort(-best)[:4])


@pytest.mark.slow
def test_rejection_is_measured_against_all_classes(bundles, tmp_path, capsys):
    vocabulary(8).save(tmp_path / "words.npz")
    Image.fromarray(photo()).save(tmp_path / "photo.png")
    words = ["--vocabulary", str(tmp_path / "words.npz"), "--backend", "onnxruntime"]
    command = ["bench", "rejection", str(bundles("lmseg").path), str(tmp_path / "photo.png"), *words]
    assert main([*command, "--top-k", "2,8", "--runs", "1", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert [row["top_k"] for row in body["rows"]] == [None, 2, 8]
    assert body["rows"][0]["agreement"] == 1
    assert body["rows"][1]["agreement"] < 1
    assert body["rows"][2]["agreement"] > 0.999
    top, row = section("json.md", "edgeseg bench rejection").split("A row:")
    assert keys(top) == [key for key in body if key not in ("schema", "command", "date", "environment")]
    assert keys(row) == list(body["rows"][0])
    assert main([*command, "--top-k", "0"]) == InputError.exit_code


@pytest.mark.slow
def test_above_256_classes_each_view_has_its_own(bundles):
    bundle = bundles("catseg")
    with edgeseg.open(bundle.path, "onnxruntime", "fp32") as segmenter:
        picked = segmenter.masks(photo(), vocabulary(300)).arrays()["picked"]
    assert picked.shape == (5, 256)
    assert not (picked == picked[0]).all()


@pytest.mark.parametrize("size", ["b", "l"])
def test_the_keys_are_those_of_a_published_file(shared, size):
    keys = json.loads((shared / f"oracle/catseg/vit{size}_keys.json").read_text())
    state = {name: torch.empty(shape, device="meta") for name, (shape, _) in keys.items()}
    recipe = choose_recipe(Checkpoint(shared), state)
    assert recipe.name == f"catseg-{size}"
    with torch.device("meta"):
        made = LMSeg(lmseg.detect(state, recipe)).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in made.items()} == {
        name: tuple(shape) for name, (shape, _) in keys.items()
    }


@pytest.mark.parametrize("name", MODELS)
def test_the_tensors_of_a_full_size_tell_every_size(name):
    config = full_config(name)
    with torch.device("meta"):
        state = LMSeg(config).state_dict()
    recipe = choose_recipe(Checkpoint(Path("a.pth")), state)
    assert recipe.name == name
    assert lmseg.detect(state, recipe) == config


def test_a_checkpoint_with_a_sam_is_lmseg(shared):
    keys = json.loads((shared / "oracle/catseg/vitb_keys.json").read_text())
    state = {name: torch.empty(shape, device="meta") for name, (shape, _) in keys.items()}
    assert choose_recipe(Checkpoint(shared), state | {"sam.pos_embed": torch.empty(1, 64, 64, 768)}).name == "lmseg-b"


@pytest.mark.parametrize("option", [{"taps": [3, 4]}, {"taps": [2, 1]}, {"side": 80}, {"pooling": 3}, {"prompts": 2}])
def test_options_that_contradict_the_tensors_are_refused(tmp_path, option):
    recipe = small_recipe()
    recipe.options.update(option)
    with pytest.raises(CheckpointError, match="missing or odd"):
        lmseg.load(tmp_path / "a.pth", small_state(small_config()), recipe)


@pytest.mark.parametrize(
    ("canvas", "nearest"), [((640, 650), "640x640"), ((100, 384), "384x384"), ((896, 700), "896x640")]
)
def test_a_canvas_without_whole_windows_is_refused_with_the_nearest(canvas, nearest):
    with pytest.raises(InputError, match=f"use --size {nearest}"):
        lmseg.check_canvas(canvas)


@pytest.mark.parametrize("family", ["lmseg", "catseg-b"])
def test_a_canvas_of_another_family_is_refused_before_a_named_checkpoint_is_opened(tmp_path, family):
    with pytest.raises(InputError, match="use --size 384x384"):
        export_bundle(Checkpoint(tmp_path / "missing.pth", family), [(64, 64)], tmp_path / "new.bundle")


def test_a_canvas_of_another_family_is_refused_before_weights_are_read(tmp_path):
    shapes = {f"{lmseg.CLIP}.visual.conv1.weight": (768, 3, 16, 16), f"{lmseg.AGGREGATION}.conv1.weight": (1,)}
    torch.save({name: torch.full(shape, torch.nan) for name, shape in shapes.items()}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="use --size 384x384"):
        export_bundle(Checkpoint(tmp_path / "a.pth"), [(64, 64)], tmp_path / "new.bundle")
    with pytest.raises(CheckpointError, match="holds NaN"):
        export_bundle(Checkpoint(tmp_path / "a.pth"), [(384, 384)], tmp_path / "new.bundle")


@pytest.mark.parametrize("name", ["lmseg-b", "lmseg-l"])
def test_the_presets_of_lmseg_are_catsegs_with_a_sam(name):
    mine, theirs = preset(name), preset(name.replace("lmseg", "catseg"))
    assert {k: v for k, v in mine.options.items() if k != "sam"} == {
        k: v for k, v in theirs.options.items() if k != "sam"
    }


@pytest.mark.parametrize("name", MODELS)
def test_images_are_normalised_as_in_the_encoders_own_packages(name):
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    from segment_anything.modeling import Sam

    wanted = {"image_clip": np.array([OPENAI_DATASET_MEAN, OPENAI_DATASET_STD]) * 255}
    if name.startswith("lmseg"):
        sam = inspect.signature(Sam.__init__).parameters
        wanted["image_sam"] = np.array([sam["pixel_mean"].default, sam["pixel_std"].default])
    found = lmseg.transforms(preset(name))
    assert found.keys() == wanted.keys()
    for image, values in wanted.items():
        np.testing.assert_allclose([found[image].mean, found[image].std], values, rtol=1e-6)
