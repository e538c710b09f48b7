"""Run lengths and the file of segments."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgeseg.errors import InputError
from edgeseg.segments.runs import Runs, check, encode, encode_all
from edgeseg.segments.segments import Segments
from edgeseg.segments.segments import given as given_masks

MASKS = arrays.arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)))


@given(MASKS)
def test_masks_survive_their_run_lengths(masks):
    runs = check(encode_all(masks, masks.shape[1:]), "check")
    assert all((runs.mask(i) == mask).all() for i, mask in enumerate(masks))
    assert runs.areas().tolist() == masks.sum(axis=(1, 2)).tolist()


@given(MASKS)
def test_boxes_hold_the_mask_and_nothing_more(masks):
    for box, mask in zip(encode_all(masks, masks.shape[1:]).boxes(), masks, strict=True):
        rows, columns = np.nonzero(mask)
        expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if len(rows) else (0, 0, 0, 0)
        assert tuple(box) == expected


def test_runs_go_column_by_column_from_outside():
    mask = np.array([[1, 0], [0, 1], [0, 1]], bool)
    assert encode(mask).tolist() == [0, 1, 3, 2]


@pytest.mark.parametrize(
    ("counts", "starts"), [([3, 2], [0, 2]), ([3, 3], [0, 1]), ([6], [0, 0, 1]), ([6], [1, 1]), ([7], [0, 1])]
)
def test_damaged_runs_are_refused(counts, starts):
    runs = Runs((2, 3), np.array(counts, np.uint32), np.array(starts))
    with pytest.raises(InputError, match=r"damaged|has 6"):
        check(runs, "read the masks")


def some(count=3):
    masks = np.zeros((count, 4, 5), bool)
    masks[0, 1:3, 2] = True
    found = given_masks(encode_all(masks, (4, 5)))
    rows = np.eye(count, 8, dtype=np.float32)
    rows[1:] = 0  # of empty masks
    return Segments(found.runs, found.iou, found.stability, found.points, found.answer, rows, "ab" * 32, "a.jpg", "b")


def test_segments_survive_their_file(tmp_path):
    made = some()
    made.save(tmp_path / "a.npz")
    found = Segments.load(tmp_path / "a.npz")
    assert found.runs.counts.tolist() == made.runs.counts.tolist()
    assert (found.size, found.encoder, found.image, found.bundle) == ((4, 5), "ab" * 32, "a.jpg", "b")
    assert found.embeddings is not None
    np.testing.assert_array_equal(found.embeddings, made.embeddings)
    assert (tmp_path / "a.npz").stat().st_size < 5000


def test_no_segment_at_all_is_a_file_too(tmp_path):
    none = np.zeros((0, 4, 5), bool)
    given_masks(encode_all(none, (4, 5))).save(tmp_path / "a.npz")
    found = Segments.load(tmp_path / "a.npz")
    assert (len(found), found.size, found.embeddings) == (0, (4, 5), None)
    assert found.described()["segments"] == []


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("counts", np.array([3], np.uint32), "damaged"),
        ("counts", np.array([3.0]), "its counts are float64"),
        ("size", np.array([4, 6]), "has 20 pixels, and a photo of 4x6 has 24"),
        ("size", np.array([4, 1 << 40]), "its size"),
        ("iou", np.ones(2, np.float32), "it has 3 masks and 2 iou"),
        ("embeddings", np.full((3, 8), np.nan, np.float32), "not all finite"),
        ("encoder", np.array("x"), "not 64 hex digits"),
    ],
)
def test_damaged_files_are_refused(tmp_path, name, value, message):
    some().save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as file:
        content = dict(file)
    np.savez(tmp_path / "b.npz", **{**content, name: value})
    with pytest.raises(InputError, match=message):
        Segments.load(tmp_path / "b.npz")


def test_what_is_no_file_of_segments_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        Segments.load(tmp_path / "a.npz")
    (tmp_path / "a.npz").write_text("no")
    with pytest.raises(InputError, match="it is no npz file"):
        Segments.load(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", a=np.ones(2))
    with pytest.raises(InputError, match="it holds \\['a'\\]"):
        Segments.load(tmp_path / "b.npz")
