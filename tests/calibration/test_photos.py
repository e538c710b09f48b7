import numpy as np
import pytest

from edgeseg.calibration.photos import list_images, photos_at, pilots, reference_photos
from edgeseg.errors import InputError
from tests.calibration.photo_bundle import make, write_photos

pytestmark = pytest.mark.onnx


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make(tmp_path_factory.mktemp("photos") / "toy.bundle")


def quiet(_done, _total):
    pass


def names(photos):
    return [photo.source.name for photo in photos.items]


def test_folder_is_searched_and_what_is_no_image_is_passed_over(tmp_path):
    write_photos(tmp_path / "deep" / "er", 2)
    (tmp_path / "notes.txt").write_text("no image")
    assert [path.name for path in list_images(tmp_path)] == ["photo-32-00.png", "photo-32-01.png"]


def test_list_names_paths_relative_to_itself(tmp_path):
    write_photos(tmp_path / "in", 3)
    (tmp_path / "list.txt").write_text("# two of them\nin/photo-32-02.png\n\n" + str(tmp_path / "in/photo-32-00.png"))
    found = list_images(tmp_path / "list.txt")
    assert [path.name for path in found] == ["photo-32-02.png", "photo-32-00.png"]
    assert all(path.is_file() for path in found)


@pytest.mark.parametrize("what", ["empty folder", "empty list", "nothing", "binary"])
def test_no_images_are_an_error_that_says_what_to_give(tmp_path, what):
    place = tmp_path / "x"
    if what == "empty folder":
        place.mkdir()
    if what == "empty list":
        place.write_text("\n# nothing\n")
    if what == "binary":
        place.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match=r"calibrate on .*give a folder of images, or a text file"):
        list_images(place)


def test_order_and_choice_depend_on_the_seed_alone(bundle, tmp_path):
    folder = write_photos(tmp_path / "in", 12)
    first, again, other = (photos_at(folder, bundle, 5, seed, quiet) for seed in (1, 1, 2))
    assert names(first) == names(again)
    assert first.note == again.note
    assert names(first) != names(other)
    assert first.note.digest != other.note.digest
    assert first.note.count == 5


def test_digest_is_of_the_contents_and_not_of_the_place(bundle, tmp_path):
    digests = []
    for name in "ab":
        folder = write_photos(tmp_path / name, 4)
        digests.append(photos_at(folder, bundle, 9, 0, quiet).note.digest)
    (folder / "photo-32-00.png").write_bytes((folder / "photo-32-01.png").read_bytes())
    assert digests[0] == digests[1] != photos_at(folder, bundle, 9, 0, quiet).note.digest


def test_unreadable_images_are_counted_and_named_and_the_rest_used(bundle, tmp_path):
    folder = write_photos(tmp_path / "in", 4)
    (folder / "photo-32-01.png").write_bytes(b"no picture")
    (folder / "photo-32-02.png").write_bytes((folder / "photo-32-02.png").read_bytes()[:-200])
    write_photos(folder, 1, (500, 500))  # larger than every canvas
    found = photos_at(folder, bundle, 9, 0, quiet)
    assert sorted(names(found)) == ["photo-32-00.png", "photo-32-03.png"]
    assert found.note.unreadable == 3
    assert sorted(found.note.names) == ["photo-32-01.png", "photo-32-02.png", "photo-500-00.png"]


def test_an_image_takes_the_place_of_an_unreadable_one(bundle, tmp_path):
    folder = write_photos(tmp_path / "in", 6)
    for index in range(3):
        (folder / f"photo-32-{index:02}.png").write_bytes(b"no picture")
    assert photos_at(folder, bundle, 3, 0, quiet).note.count == 3


def test_only_unreadable_images_are_an_error(bundle, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="none of its 1 images can be read"):
        photos_at(tmp_path, bundle, 9, 0, quiet)


def test_images_are_grouped_by_canvas_and_pilots_come_from_all(bundle, tmp_path):
    folder = write_photos(tmp_path / "in", 6)
    write_photos(folder, 6, (32, 48))
    found = photos_at(folder, bundle, 99, 0, quiet)
    assert [photo.placement.canvas for photo in found.items] == [(32, 32)] * 6 + [(32, 48)] * 6
    assert {photo.placement.canvas for photo in pilots(found, 4)} == {(32, 32), (32, 48)}
    assert len(list(pilots(found, 99))) == 12


def test_progress_ends_at_all(bundle, tmp_path):
    seen = []
    photos_at(write_photos(tmp_path / "in", 3), bundle, 99, 0, lambda *counts: seen.append(counts))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_reference_inputs_stand_in(bundle):
    found = reference_photos(bundle)
    assert found.note.source == "reference"
    assert [photo.placement.canvas for photo in found.items] == [(32, 32), (32, 48)]
    assert np.array_equal(found.items[0].rgb(), bundle.reference("32x32")[0]["image"])
