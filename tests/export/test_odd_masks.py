"""Masks that are odd have a defined result: none at all, one over everything, two alike, some on the same pixels."""

import numpy as np
import pytest

import edgeseg
from edgeseg.cli import main
from edgeseg.segments.finder import Wish
from edgeseg.segments.query import load_all, rank
from edgeseg.segments.runs import encode_all
from edgeseg.segments.segments import Segments
from tests.reference.sam_masks import photo

pytestmark = [pytest.mark.torch, pytest.mark.onnx]

SIZE = (60, 80)
NAMES = ["roof", "tree", "sky"]
RGB = np.ascontiguousarray(photo("china")[100 : 100 + SIZE[0], 200 : 200 + SIZE[1]])


@pytest.fixture
def segmenter(small_use):
    with edgeseg.open(small_use.path, "onnxruntime", threads=1) as opened:
        yield opened


def nothing(segmenter, monkeypatch, uncovered):
    """SAM finds no mask that is good enough."""
    recipe = segmenter.bundle.manifest.recipe
    monkeypatch.setitem(recipe["automatic"], "pred_iou_threshold", 1e9)
    monkeypatch.setitem(recipe["automatic"], "points_per_side", 1)
    monkeypatch.setitem(recipe, "uncovered", uncovered)


def test_a_photo_without_a_mask_has_the_class_of_the_whole(segmenter, monkeypatch):
    nothing(segmenter, monkeypatch, "whole")
    result = segmenter(RGB, NAMES)
    whole = segmenter.segments(RGB, Wish(encode_all(np.ones((1, *SIZE), bool), SIZE))).embeddings
    best = int((segmenter.vocabulary(NAMES).embeddings @ whole[0]).argmax())
    assert (result.labels == best).all()


def test_or_none_where_the_recipe_says_so(segmenter, monkeypatch):
    nothing(segmenter, monkeypatch, "none")
    result = segmenter(RGB, NAMES)
    assert result.none_pixels == SIZE[0] * SIZE[1]


def test_no_mask_at_all_is_written_read_and_ranked(segmenter, monkeypatch, tmp_path, capsys):
    nothing(segmenter, monkeypatch, "whole")
    found = segmenter.segments(RGB)
    assert found.embeddings.shape == (0, 48)
    found.save(tmp_path / "none.npz")
    read = Segments.load(tmp_path / "none.npz")
    assert (len(read), read.size, read.encoder) == (0, SIZE, found.encoder)
    assert rank(load_all([tmp_path / "none.npz"]), np.ones(48, np.float32), 3) == []
    words = ["query", str(tmp_path / "none.npz"), "a cup", "--bundle", str(segmenter.bundle.path)]
    assert main(words) == 0
    assert "there is no segment in these files" in capsys.readouterr().out


def test_masks_alike_and_masks_on_the_same_pixels_have_each_an_embedding_of_its_own(segmenter):
    masks = np.zeros((5, *SIZE), bool)
    masks[0] = True
    masks[1, 10:30, 10:40] = masks[2, 10:30, 10:40] = masks[3, 20:50, 5:70] = True  # masks[4] is empty
    rows = segmenter.segments(RGB, Wish(encode_all(masks, SIZE))).embeddings
    alone = [segmenter.segments(RGB, Wish(encode_all(masks[i : i + 1], SIZE))).embeddings[0] for i in range(5)]
    np.testing.assert_allclose(rows, alone, atol=1e-6)
    np.testing.assert_allclose(rows[1], rows[2], atol=1e-6)
    assert np.abs(rows[1] - rows[3]).max() > 1e-3
    assert not rows[4].any()


def test_a_mask_of_one_pixel_is_embedded(segmenter):
    mask = np.zeros((1, *SIZE), bool)
    mask[0, -1, -1] = True
    rows = segmenter.segments(RGB, Wish(encode_all(mask, SIZE))).embeddings
    assert np.linalg.norm(rows[0]) == pytest.approx(1, abs=1e-5)
