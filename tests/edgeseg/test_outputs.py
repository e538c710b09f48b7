import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeseg.compose import NONE_LABEL, compose_scored
from edgeseg.errors import StorageError
from edgeseg.outputs import OutputOptions, unique_stems, write_outputs
from edgeseg.overlay import blend, draw_overlay
from edgeseg.palette import colour, colours
from edgeseg.placement import Placement
from edgeseg.segmentation import Masks, Segmentation


def result(classes: int = 3, size=(20, 30)) -> Segmentation:
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, size).astype(np.uint16)
    labels[0, 0] = classes - 1
    if min(size) > 1:
        labels[1, 1] = NONE_LABEL
    names = tuple(f"class {index}" for index in range(classes))
    counts = np.bincount(labels[labels != NONE_LABEL], minlength=classes)
    masks = Masks(
        rng.standard_normal((4, 8, 8)).astype(np.float32),
        rng.random((4, classes)).astype(np.float32),
        names,
        Placement(size, (32, 32), (32, 32), False, "a test"),
    )
    image = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    areas = dict(zip(names, map(int, counts), strict=True))
    return Segmentation(labels, names, areas, False, "a test", image, masks, ("grey was converted",))


@pytest.mark.parametrize(("classes", "mode", "none"), [(1, "P", 255), (255, "P", 255), (256, "I;16", 65535)])
def test_label_png_holds_the_labels(tmp_path, classes, mode, none):
    made = result(classes)
    write_outputs(made, tmp_path, "a", OutputOptions())
    with Image.open(tmp_path / "a.labels.png") as image:
        assert image.mode == mode
        labels = np.asarray(image).astype(np.int64)
    assert np.array_equal(labels, np.where(made.labels == NONE_LABEL, none, made.labels))
    assert json.loads((tmp_path / "a.json").read_text())["none_label"] == none


def test_indexed_png_has_the_colours_of_the_overlay(tmp_path):
    write_outputs(result(5), tmp_path, "a", OutputOptions())
    with Image.open(tmp_path / "a.labels.png") as image:
        palette = np.array(image.getpalette()).reshape(-1, 3)
    assert np.array_equal(palette[:5], colours(5))
    assert not palette[255].any()


def test_json_has_names_areas_and_how_the_image_went_in(tmp_path):
    made = result()
    paths = write_outputs(made, tmp_path / "new" / "folder", "a", OutputOptions())
    body = json.loads(paths[-1].read_text())
    assert [path.name for path in paths] == ["a.labels.png", "a.overlay.png", "a.json"]
    assert body["files"] == ["a.labels.png", "a.overlay.png"]
    assert (body["schema"], body["command"]) == (1, "run")
    assert {item["name"]: item["area_pixels"] for item in body["classes"]} == made.areas
    assert body["none_pixels"] == 1
    assert (body["exact"], body["reason"], body["notes"]) == (False, "a test", ["grey was converted"])


def test_scores_file_gives_every_score(tmp_path):
    made = result()
    write_outputs(made, tmp_path, "a", OutputOptions(overlay=False, scores=True))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as stored:
        original, valid, canvas = ((int(h), int(w)) for h, w in map(stored.get, ("original", "resized", "canvas")))
        place = Placement(original, valid, canvas, True, None)
        best = compose_scored(stored["logits"], stored["class_probs"], place).best
    scores = np.concatenate([part.max(2).ravel() for _, _, part in made.masks.scores()])
    assert best is not None
    assert np.array_equal(best.ravel(), scores)
    assert not (tmp_path / "a.overlay.png").exists()


def test_folder_that_cannot_be_made_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        write_outputs(result(), tmp_path / "file" / "out", "a", OutputOptions())


def test_failed_write_leaves_the_earlier_file(tmp_path, monkeypatch):
    write_outputs(result(), tmp_path, "a", OutputOptions())
    before = (tmp_path / "a.labels.png").read_bytes()

    def full(self, path, **options):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(StorageError, match="full"):
        write_outputs(result(9), tmp_path, "a", OutputOptions())
    assert (tmp_path / "a.labels.png").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("paths", "stems"),
    [
        (["a/x.jpg", "b/x.png", "c/y.png"], ["x", "x-2", "y"]),
        (["x.jpg", "x-2.jpg", "b/x.jpg"], ["x", "x-2", "x-3"]),
        (["b/x.jpg", "x.jpg", "x-2.jpg"], ["x", "x-3", "x-2"]),
        (["x.jpg", "X.jpg"], ["x", "X-2"]),
    ],
)
def test_inputs_of_one_stem_get_outputs_of_their_own(paths, stems):
    assert unique_stems(map(Path, paths)) == stems


def test_first_255_colours_are_distinct_and_none_is_black():
    assert len({colour(index) for index in range(255)}) == 255
    assert (0, 0, 0) not in {colour(index) for index in range(1000)}


def test_overlay_keeps_pixels_of_none_of_the_classes():
    made = result()
    blended = blend(made.image, made.labels, 3)
    known = made.labels != NONE_LABEL
    assert np.array_equal(blended[~known], made.image[~known])
    mean = made.image * 0.45 + colours(3)[np.where(known, made.labels, 0)] * 0.55
    assert np.abs(blended[known] - mean[known]).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (600, 800), (40, 3000)])
@pytest.mark.parametrize("classes", [1, 200])
def test_overlay_has_the_image_above_a_legend(size, classes):
    made = result(classes, size)
    sheet = draw_overlay(made)
    assert sheet.mode == "RGB"
    assert sheet.width == max(size[1], 160)
    assert np.array_equal(np.asarray(sheet)[: size[0], : size[1]], blend(made.image, made.labels, classes))
    assert (np.asarray(sheet)[size[0] :].max(2) < 60).any()  # black: something is written there


def test_save_writes_the_three_files(tmp_path):
    assert [path.name for path in result().save(tmp_path, "b")] == ["b.labels.png", "b.overlay.png", "b.json"]
