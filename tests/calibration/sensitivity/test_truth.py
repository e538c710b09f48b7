"""True labels: one PNG per image, values beyond the classes not counted."""

import numpy as np
import pytest
from PIL import Image

from edgeseg.calibration.photos import photos_at, reference_photos
from edgeseg.calibration.sensitivity.truth import Truth
from edgeseg.errors import InputError
from tests.calibration.photo_bundle import write_photos
from tests.calibration.sensitivity.toy import make, quiet

pytestmark = pytest.mark.onnx


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make(tmp_path_factory.mktemp("truth") / "toy.bundle")


@pytest.fixture
def photos(bundle, tmp_path):
    return photos_at(write_photos(tmp_path / "in", 2), bundle, 9, 0, quiet)


def write(folder, photos, values, mode=None):
    folder.mkdir(exist_ok=True)
    for photo in photos.items:
        Image.fromarray(values, mode).save(folder / f"{photo.source.stem}.png")
    return folder


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_values_are_classes_and_those_beyond_are_not_counted(photos, tmp_path, dtype):
    values = np.zeros((32, 32), dtype)
    values[0, :3] = 1, 2, 255
    labels = Truth(write(tmp_path / "labels", photos, values), photos, 2).labels(0)
    assert labels[0, :4].tolist() == [1, -1, -1, 0]


def test_digest_is_of_the_labels_and_the_number_of_classes(photos, tmp_path):
    folder = write(tmp_path / "labels", photos, np.zeros((32, 32), np.uint8))
    first = Truth(folder, photos, 2).digest
    assert Truth(folder, photos, 2).digest == first != Truth(folder, photos, 3).digest
    write(folder, photos, np.ones((32, 32), np.uint8))
    assert Truth(folder, photos, 2).digest != first


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.zeros((32, 31), np.uint8), "they are 32x31 and the image is 32x32"),
        (np.zeros((32, 32, 3), np.uint8), "its mode is RGB"),
        (np.full((32, 32), 7, np.uint8), "no value in them is below 2"),
    ],
)
def test_labels_that_do_not_fit_are_refused(photos, tmp_path, values, found):
    with pytest.raises(InputError, match=found):
        Truth(write(tmp_path / "labels", photos, values), photos, 2)


def test_missing_labels_are_named(photos, tmp_path):
    folder = write(tmp_path / "labels", photos, np.zeros((32, 32), np.uint8))
    (folder / "photo-32-01.png").unlink()
    with pytest.raises(InputError, match=r"photo-32-01\.png"):
        Truth(folder, photos, 2)
    with pytest.raises(InputError, match="there is no such folder"):
        Truth(tmp_path / "nowhere", photos, 2)


def test_images_of_one_name_in_two_folders_are_refused(bundle, tmp_path):
    for folder in "ab":
        write_photos(tmp_path / "in" / folder, 1)
    found = photos_at(tmp_path / "in", bundle, 9, 0, quiet)
    assert len(found.items) == 2
    with pytest.raises(InputError, match=r"would share photo-32-00\.png"):
        Truth(write(tmp_path / "labels", found, np.zeros((32, 32), np.uint8)), found, 2)


def test_a_file_that_is_no_image_is_refused(photos, tmp_path):
    folder = write(tmp_path / "labels", photos, np.zeros((32, 32), np.uint8))
    (folder / "photo-32-00.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot identify image file"):
        Truth(folder, photos, 2)


def test_reference_inputs_have_no_labels(bundle, tmp_path):
    with pytest.raises(InputError, match="have no labels"):
        Truth(tmp_path, reference_photos(bundle), 2)
