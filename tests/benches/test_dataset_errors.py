"""A data set that is incomplete or wrong is refused with what is missing, never made smaller in silence."""

import numpy as np
import pytest
from PIL import Image

from edgeseg.benches.datasets import open_dataset
from edgeseg.errors import InputError
from tests.benches.trees import grey, listing, matlab, palette, photo


@pytest.fixture
def camvid(tmp_path):
    for name in "abc":
        photo(tmp_path / f"test/{name}.png")
        grey(tmp_path / f"testannot/{name}.png", [0, 10, 11])
    return tmp_path


@pytest.fixture
def voc(tmp_path):
    for name in "abc":
        photo(tmp_path / f"JPEGImages/{name}.jpg")
        palette(tmp_path / f"SegmentationClass/{name}.png", [0, 1])
    listing(tmp_path / "ImageSets/Segmentation/val.txt", "abc")
    return tmp_path


def refused(name, root, *options, **more):
    with pytest.raises(InputError) as error:
        open_dataset(name, root, *options, **more)
    return str(error.value)


def test_unknown_names_are_answered_with_the_known_ones(camvid):
    assert "camvid-11" in refused("cityscapes", camvid)
    assert "test, train, val" in refused("camvid-11", camvid, "night")
    assert "segnet, folders" in refused("camvid-11", camvid, layout="mat")


def test_ambiguous_split_is_refused(tmp_path):
    assert "val, train, trainval" in refused("voc-20", tmp_path, "tr")


def test_missing_root_wrong_root_and_missing_split_are_told_apart(camvid):
    assert "there is no such folder" in refused("camvid-11", camvid / "nowhere")
    assert "there is no test with testannot/*.png; nor test/images with test/labels/*.png" in refused(
        "camvid-11", camvid / "testannot"
    )
    assert "its split train is not there; get it, or take --split test" in refused("camvid-11", camvid, "train")


def test_image_without_labels_is_counted_and_named(camvid):
    (camvid / "testannot/b.png").unlink()
    assert "1 of its images have no label file: b" in refused("camvid-11", camvid)


def test_labels_without_an_image_are_counted_and_named(camvid):
    for name in "bc":
        (camvid / f"test/{name}.png").unlink()
    assert "2 of its images have no image: b, c" in refused("camvid-11", camvid)


def test_long_lists_of_missing_files_are_cut(camvid):
    for number in range(9):
        photo(camvid / f"test/more{number}.png")
    assert "9 of its images have no label file: more0, more1, more2, ...;" in refused("camvid-11", camvid)


def test_listed_image_or_label_that_is_missing_is_named(voc):
    (voc / "SegmentationClass/a.png").unlink()
    assert "label file: a" in refused("voc-20", voc)
    listing(voc / "ImageSets/Segmentation/val.txt", ["b", "d"])
    assert "no image: d" in refused("voc-20", voc)


def test_missing_empty_repeating_or_binary_list_is_refused(voc):
    file = voc / "ImageSets/Segmentation/val.txt"
    listing(file, "abca")
    assert "names a twice" in refused("voc-20", voc)
    file.write_text("\n")
    assert "is empty" in refused("voc-20", voc)
    file.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in refused("voc-20", voc)
    file.unlink()
    assert "no list of its images" in refused("voc-20", voc)


def test_one_image_in_two_files_is_refused(camvid):
    photo(camvid / "test/a.jpg")
    assert "a.jpg and a.png are both the image a" in refused("camvid-11", camvid)


def test_empty_folder_of_images_is_refused(tmp_path):
    assert "holds no image" in refused("images", tmp_path)


def test_user_folder_without_class_names_is_refused(tmp_path):
    photo(tmp_path / "images/a.jpg")
    grey(tmp_path / "labels/a.png", [0])
    assert "classes.txt" in refused("folder", tmp_path)


def load_error(dataset):
    with pytest.raises(InputError) as error:
        dataset.load(0)
    return str(error.value)


def test_values_outside_the_map_are_counted(camvid):
    grey(camvid / "testannot/a.png", [0, 12, 12, 255])
    assert "18 pixels have values that are no class of this data set: 12 (12 pixels), 255 (6 pixels)" in load_error(
        open_dataset("camvid-11", camvid)
    )


def test_many_values_outside_the_map_are_cut(camvid):
    grey(camvid / "testannot/a.png", range(20, 44))
    assert "and 19 more" in load_error(open_dataset("camvid-11", camvid))


def test_labels_of_another_size_are_refused(camvid):
    grey(camvid / "testannot/a.png", [0], (6, 4))
    assert "they are 6x4 and the image is 4x6" in load_error(open_dataset("camvid-11", camvid))


def test_coloured_labels_are_refused(camvid):
    photo(camvid / "testannot/a.png")
    assert "its colour mode is RGB" in load_error(open_dataset("camvid-11", camvid))


def test_numbers_where_colours_are_wanted_are_refused(tmp_path):
    photo(tmp_path / "images/ADE/validation/a.jpg")
    grey(tmp_path / "images/ADE/validation/a_seg.png", [1])
    assert "its colour mode is L" in load_error(open_dataset("ade20k-847", tmp_path))


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_damaged_or_vanished_labels_are_refused(camvid, content):
    dataset = open_dataset("camvid-11", camvid)
    file = camvid / "testannot/a.png"
    file.write_bytes(file.read_bytes()[:60] if content is None else content)
    assert "missing or damaged" in load_error(dataset)
    file.unlink()
    assert "missing or damaged" in load_error(dataset)


def test_damaged_image_is_refused(camvid):
    (camvid / "test/a.png").write_bytes(b"no image")
    assert "read the image" in load_error(open_dataset("camvid-11", camvid))


def test_values_of_more_than_16_bits_are_refused(camvid):
    Image.fromarray(np.full((4, 6), 70000, np.int32)).save(camvid / "testannot/a.tif")
    (camvid / "testannot/a.tif").rename(camvid / "testannot/a.png")
    assert "from 70000 to 70000" in load_error(open_dataset("camvid-11", camvid))


@pytest.fixture
def context(tmp_path):
    photo(tmp_path / "JPEGImages/a.jpg")
    matlab(tmp_path / "trainval/a.mat", [1, 459])
    listing(tmp_path / "val.txt", "a")
    return tmp_path


def test_value_beyond_the_459_of_pascal_context_is_refused(context):
    matlab(context / "trainval/a.mat", [460])
    for name in ("pascal-context-59", "pascal-context-60", "pascal-context-459"):
        assert "460 (24 pixels)" in load_error(open_dataset(name, context))


def test_matlab_file_without_a_label_map_is_refused(context):
    from scipy.io import savemat

    savemat(context / "trainval/a.mat", {"Other": np.zeros((4, 6)), "text": "LabelMap"})
    assert "holds no matrix LabelMap" in load_error(open_dataset("pascal-context-459", context))


@pytest.mark.parametrize("values", [[0.5], [np.nan], [np.inf]])
def test_matlab_labels_that_are_no_whole_numbers_are_refused(context, values):
    from scipy.io import savemat

    savemat(context / "trainval/a.mat", {"LabelMap": np.resize(values, (4, 6))})
    assert "whole numbers" in load_error(open_dataset("pascal-context-459", context))


@pytest.mark.parametrize("kept", [0, 60, 127, 129, 140, -1])
def test_damaged_matlab_file_is_refused(context, kept):
    file = context / "trainval/a.mat"
    file.write_bytes(file.read_bytes()[:kept])
    assert "MATLAB" in load_error(open_dataset("pascal-context-459", context))
