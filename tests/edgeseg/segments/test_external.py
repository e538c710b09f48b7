"""Masks that someone else made, good and bad."""

import json

import numpy as np
import pytest
from PIL import Image

from edgeseg.errors import InputError
from edgeseg.segments.external import read_masks
from edgeseg.segments.query import load_all, rank
from edgeseg.segments.runs import encode_all
from edgeseg.segments.segments import Segments, given

SIZE = (4, 6)


def write_png(path, mask, mode="L"):
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    image.convert(mode).save(path)


def masks():
    """One huge, one inside of it, one empty."""
    made = np.ones((3, *SIZE), bool)
    made[1] = False
    made[1, 1:3, 2:4] = True
    made[2] = False
    return made


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_a_folder_of_pngs_is_read_by_name(tmp_path, mode):
    for name, mask in zip("bca", masks(), strict=True):
        write_png(tmp_path / f"{name}.png", mask, mode)
    runs = read_masks(tmp_path, SIZE)
    assert runs.areas().tolist() == [0, 24, 4]


def test_coco_run_lengths_and_a_file_of_segments_are_read(tmp_path):
    runs = encode_all(masks(), SIZE)
    listed = [{"size": list(SIZE), "counts": runs.of(i).tolist()} for i in range(3)]
    (tmp_path / "a.json").write_text(json.dumps(listed))
    given(runs).save(tmp_path / "a.npz")
    for name in ("a.json", "a.npz"):
        assert read_masks(tmp_path / name, SIZE).areas().tolist() == [24, 4, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "an empty one"),
        ("{", "it is no JSON"),
        ('[{"counts": [24]}]', "its size is None"),
        ('[{"size": [4, 6]}]', "no list of counts"),
        ('[{"size": [4, 6], "counts": "abc"}]', "no list of counts"),
        ('[{"size": [4, 6], "counts": [-1, 25]}]', "no number of pixels"),
        ('[{"size": [4, 6], "counts": [20]}]', "has 20 pixels"),
        ('[{"size": [6, 4], "counts": [24]}]', "the photo is 4x6"),
    ],
)
def test_bad_run_lengths_are_refused(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read_masks(tmp_path / "a.json", SIZE)


def test_bad_pictures_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no file in it ends in \.png"):
        read_masks(tmp_path, SIZE)
    write_png(tmp_path / "a.png", np.ones((6, 4)))
    with pytest.raises(InputError, match="it is 6x4, and the photo is 4x6"):
        read_masks(tmp_path, SIZE)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="it is no whole PNG"):
        read_masks(tmp_path, SIZE)
    with pytest.raises(InputError, match="there is no such file"):
        read_masks(tmp_path / "b", SIZE)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(InputError, match="none of the forms"):
        read_masks(tmp_path / "a.txt", SIZE)


def test_segments_of_another_photo_are_refused(tmp_path):
    given(encode_all(masks(), SIZE)).save(tmp_path / "a.npz")
    with pytest.raises(InputError, match="they are 4x6, and the photo is 6x4"):
        read_masks(tmp_path / "a.npz", (6, 4))


def embedded(rows, image="a.jpg", encoder="ab" * 32):
    found = given(encode_all(masks(), SIZE))
    return Segments(
        found.runs, found.iou, found.stability, found.points, found.answer, np.array(rows, np.float32), encoder, image
    )


def test_segments_are_ranked_over_photos_and_empty_ones_left_out():
    first, second = embedded([[1, 0], [0, 1], [0, 0]]), embedded([[0.6, 0.8], [-1, 0], [0, 0]])
    matches = rank([first, second], np.array([0, 1], np.float32), 3)
    assert [(one.file, one.segment) for one in matches] == [(0, 1), (1, 0), (0, 0)]
    assert matches[0].score == pytest.approx(1)
    assert matches[0].box == (2, 1, 4, 3)
    assert matches[0].area == 4


def test_files_of_two_spaces_cannot_be_ranked_together(tmp_path):
    embedded([[1, 0], [0, 1], [0, 0]]).save(tmp_path / "a.npz")
    embedded([[1, 0], [0, 1], [0, 0]], encoder="cd" * 32).save(tmp_path / "b.npz")
    given(encode_all(masks(), SIZE)).save(tmp_path / "c.npz")
    with pytest.raises(InputError, match="another space"):
        load_all([tmp_path / "a.npz", tmp_path / "b.npz"])
    with pytest.raises(InputError, match="its segments have no embeddings"):
        load_all([tmp_path / "c.npz"])
    with pytest.raises(InputError, match="the text's has 3"):
        rank([embedded([[1, 0], [0, 1], [0, 0]])], np.ones(3, np.float32), 1)
