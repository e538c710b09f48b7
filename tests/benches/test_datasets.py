"""Every data set, from a small tree in the form in which it is published: the right files, sizes and class numbers."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from edgeseg.benches.datasets import DATASETS, IGNORE, open_dataset
from edgeseg.benches.datasets.label_map import LabelMap
from edgeseg.benches.datasets.table import ROWS
from tests.benches.trees import SIZE, ade_colours, grey, listing, matlab, palette, photo, spread

X = IGNORE
KEYS = ("2007_000033", "2007_000042")
VOC = ("JPEGImages/{}.jpg", "SegmentationClass/{}.png", "ImageSets/Segmentation/val.txt", palette)

# data set, layout; images, labels, list; what writes labels; value:class, where x is not scored
TABLE = """
ade20k-150 published images/validation/{}.jpg annotations/validation/{}.png - grey 0:x 1:0 2:1 150:149
ade20k-150 detectron2 images/validation/{}.jpg annotations_detectron2/validation/{}.png - grey 0:0 149:149 255:x
ade20k-847 published images/ADE/validation/d/{}.jpg images/ADE/validation/d/{}_seg.png - colours 2978:0 312:1
ade20k-847 published images/ADE/validation/d/{}.jpg images/ADE/validation/d/{}_seg.png - colours 0:x 1:x 3148:846
ade20k-847 detectron2 images_detectron2/validation/{}.jpg annotations_detectron2/validation/{}.tif - grey 2:2 65535:x
pascal-context-59 published JPEGImages/{}.jpg trainval/{}.mat pascalcontext_val.txt matlab 2:0 9:1 458:58 1:x 459:x 0:x
pascal-context-59 mmsegmentation JPEGImages/{}.jpg SegmentationClassContext/{}.png CONTEXT grey 0:x 1:0 59:58
pascal-context-59 ebseg val/image/{}.jpg val/label/{}.png - grey 0:0 58:58 255:x
pascal-context-59 detectron2 JPEGImages/{}.jpg annotations_detectron2/pc59_val/{}.png - grey 0:0 58:58 255:x
pascal-context-60 published JPEGImages/{}.jpg trainval/{}.mat val.txt matlab 2:1 9:2 458:59 1:0 459:0 0:0
pascal-context-60 mmsegmentation JPEGImages/{}.jpg SegmentationClassContext/{}.png CONTEXT grey 0:0 1:1 59:59 255:x
pascal-context-459 published JPEGImages/{}.jpg trainval/{}.mat CONTEXT matlab 0:x 1:0 459:458
pascal-context-459 ebseg val/image/{}.jpg val/label/{}.tif - grey 0:0 458:458 459:x 65535:x
pascal-context-459 detectron2 JPEGImages/{}.jpg annotations_detectron2/pc459_val/{}.tif - grey 0:0 458:458 65535:x
voc-20 published JPEGImages/{}.jpg SegmentationClass/{}.png SEGMENTATION palette 0:x 1:0 20:19 255:x
voc-20 augmented JPEGImages/{}.jpg SegmentationClassAug/{}.png SEGMENTATION grey 0:x 1:0 20:19 255:x
voc-20 ebseg images_detectron2/val/{}.jpg annotations_detectron2/val/{}.png - grey 0:0 19:19 255:x
voc-20 detectron2 JPEGImages/{}.jpg annotations_detectron2/val/{}.png - grey 0:0 19:19 255:x
voc-21 published JPEGImages/{}.jpg SegmentationClass/{}.png SEGMENTATION palette 0:0 1:1 20:20 255:x
pas-20b published JPEGImages/{}.jpg SegmentationClass/{}.png SEGMENTATION palette 0:20 1:0 20:19 255:x
pas-20b detectron2 JPEGImages/{}.jpg annotations_detectron2_bg/val/{}.png - grey 20:20 0:0 255:x
coco-stuff-171 published val2017/{}.jpg stuffthingmaps/val2017/{}.png - grey 0:0 10:10 12:11 181:170 255:x
coco-stuff-171 cocostuff images/val2017/{}.jpg annotations/val2017/{}.png - grey 0:0 89:79 91:80
coco-stuff-171 mmsegmentation images/val2017/{}.jpg annotations/val2017/{}_labelTrainIds.png - grey 11:11 170:170 255:x
coco-stuff-171 detectron2 val2017/{}.jpg stuffthingmaps_detectron2/val2017/{}.png - grey 11:11 170:170 255:x
coco-object published val2017/{}.jpg stuffthingmaps/val2017/{}.png - grey 0:1 10:11 12:12 89:80 91:0 181:0 255:0 11:0
camvid-11 segnet test/{}.png testannot/{}.png - grey 0:0 10:10 11:x
camvid-11 folders test/images/{}.jpg test/labels/{}.png - grey 0:0 10:10 11:x
folder folders images/{}.jpg labels/{}.png - grey 0:0 2:2 255:x
"""
FORMS = [line.split(maxsplit=6) for line in TABLE.strip().splitlines()]
LISTS = {"CONTEXT": "ImageSets/SegmentationContext/val.txt", "SEGMENTATION": VOC[2], "-": None}
WRITERS = {"grey": grey, "palette": palette, "colours": ade_colours, "matlab": matlab}


def build(root, images, labels, list_file, write, raw):
    for seed, key in enumerate(KEYS):
        photo(root / images.format(key), seed)
        write(root / labels.format(key), raw)
    if list_file:
        listing(root / list_file, reversed(KEYS))


def scoring(name):
    return ROWS[name]().scoring(Path("nowhere"))


def test_forms_of_every_labelled_data_set_are_tested():
    known = {(name, layout.name) for name, row in ROWS.items() if name != "images" for layout in row().layouts}
    once = {("voc-21", "augmented"), ("pas-20b", "augmented"), ("coco-object", "cocostuff")}  # as in another set
    assert {(form[0], form[1]) for form in FORMS} == known - once


@pytest.mark.parametrize("form", FORMS, ids=[" ".join(form[:2]) for form in FORMS])
def test_labels_become_class_indices(tmp_path, form):
    name, layout, images, labels, list_file, writer, pairs = form
    raw, classes = zip(*(pair.split(":") for pair in pairs.split()), strict=True)
    build(tmp_path, images, labels, LISTS.get(list_file, list_file), WRITERS[writer], [int(value) for value in raw])
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    dataset = open_dataset(name, tmp_path)
    assert dataset.layout.name == layout
    assert [dataset.item(i).image.stem for i in range(len(dataset))] == list(KEYS)
    sample = dataset.load(0)
    assert sample.rgb.shape == (*SIZE, 3)
    assert sample.labels.dtype == np.int32
    assert np.array_equal(sample.labels, spread([X if text == "x" else int(text) for text in classes]))


@pytest.mark.parametrize("name", sorted(set(DATASETS) - {"folder", "images"}))
def test_class_counts_are_those_of_the_names(name):
    found, counts = scoring(name), {"pas-20b": 21, "coco-object": 81}
    assert len(found.classes.names) == (counts.get(name) or int(name.rsplit("-", 1)[1]))
    assert len(found.prompts.names) == len(found.prompt_classes)
    assert set(found.prompt_classes) == set(range(len(found.classes.names)))


def test_label_maps_are_the_shared_facts(shared):
    facts = json.loads((shared / "data/label_maps.json").read_text())
    for name in ("ade20k-847", "coco-stuff-171"):
        table = ROWS[name]().layouts[0].values.table()
        expected = {int(raw): index for raw, index in facts[name]["index"].items() if int(raw) != 255}
        assert {raw: int(table[raw]) for raw in range(65536) if table[raw] >= 0} == expected
    table = ROWS["pascal-context-59"]().layouts[0].values.table()
    assert [int(table[raw]) for raw in facts["pascal-context-59"]["sorted_ids"]] == [X, *range(59)]


def test_context_labels_59_and_459_have_the_same_names():
    names59, names459 = (scoring(f"pascal-context-{n}").classes for n in (59, 459))
    values = ROWS["pascal-context-59"]().layouts[0].values.values
    for name, value in zip(names59.names, values, strict=True):
        assert name in (names459.names[value - 1], *names459.synonyms[value - 1])


def test_class_without_a_value_of_its_own_takes_none():
    table = LabelMap((-1, 5), others=0, limit=9).table()
    assert np.flatnonzero(table >= 0).tolist() == list(range(9))
    assert (table[5], table[4], table[65535]) == (1, 0, table[9])


def test_pas_20b_asks_for_contexts_names_and_scores_the_rest_as_background():
    found = scoring("pas-20b")
    assert found.classes.names[19:] == ("tv", "background")
    assert found.prompts.names[19:21] == ("tvmonitor", "bag")
    assert found.prompt_classes[18:22] == (18, 19, 20, 20)
    assert found.background == 20


def test_the_first_form_that_is_there_is_read_and_another_can_be_named(tmp_path):
    build(tmp_path, *VOC, [1])
    build(tmp_path, VOC[0], "SegmentationClassAug/{}.png", VOC[2], grey, [2])
    assert open_dataset("voc-20", tmp_path).load(0).labels[0, 0] == 0
    assert open_dataset("voc-20", tmp_path, layout="augmented").load(0).labels[0, 0] == 1


def test_prepared_files_beside_the_published_ones_are_left_alone(tmp_path):
    for ending in ("", "_labelTrainIds", "_instanceTrainIds"):
        build(tmp_path, "images/val2017/{}.jpg", f"annotations/val2017/{{}}{ending}.png", None, grey, [91])
    assert open_dataset("coco-stuff-171", tmp_path).load(1).labels[0, 0] == 80
    assert open_dataset("coco-object", tmp_path).load(1).labels[0, 0] == 0


def test_a_preparation_may_leave_out_images_without_labels(tmp_path):
    build(tmp_path, VOC[0], "annotations_detectron2/val/{}.png", None, grey, [1])
    photo(tmp_path / "JPEGImages/2008_000001.jpg")
    assert len(open_dataset("voc-20", tmp_path)) == 2


def test_root_may_be_shared_by_several_data_sets(tmp_path):
    build(tmp_path / "VOCdevkit/VOC2012", *VOC, [1])
    assert len(open_dataset("voc-20", tmp_path)) == 2


def test_split_may_be_shortened(tmp_path):
    build(tmp_path, "images/training/{}.jpg", "annotations/training/{}.png", None, grey, [1])
    assert open_dataset("ade20k-150", tmp_path, "train").split == "training"


def test_user_folder_may_have_splits_of_any_name(tmp_path):
    build(tmp_path, "night/images/{}.jpg", "night/labels/{}.png", None, grey, [1])
    (tmp_path / "classes.txt").write_text("a\nb\n")
    dataset = open_dataset("folder", tmp_path, "night")
    assert dataset.classes.names == ("a", "b")
    assert (dataset.split, len(dataset)) == ("night", 2)


def test_user_folder_with_many_classes_has_16_bits_and_counts_255_as_a_class(tmp_path):
    build(tmp_path, "images/{}.jpg", "labels/{}.png", None, grey, [255, 299, 65535])
    (tmp_path / "classes.txt").write_text("".join(f"class {i}\n" for i in range(300)))
    assert np.array_equal(open_dataset("folder", tmp_path).load(0).labels, spread([255, 299, X]))


def test_folder_of_images_needs_no_labels(tmp_path):
    photo(tmp_path / "a.jpg"), photo(tmp_path / "more/b.png")
    dataset = open_dataset("images", tmp_path)
    assert [dataset.item(i).key for i in range(2)] == ["a", "more/b"]
    assert not dataset.labelled
    assert (dataset.load(0).labels == X).all()


@pytest.mark.parametrize(
    ("size", "made"), [((600, 1003), (512, 856)), ((1024, 600), (874, 512)), ((512, 900), (512, 900))]
)
def test_ade20k_847_is_scored_at_a_short_side_of_512(tmp_path, size, made):
    folder = tmp_path / "images/ADE/validation/home"
    rgb = photo(folder / "a.jpg", size=size)
    ade_colours(folder / "a_seg.png", [2978, 312, 5], size)
    sample = open_dataset("ade20k-847", tmp_path).load(0)
    assert sample.rgb.shape == (*made, 3)
    assert sample.labels.shape == made
    rows, columns = (np.arange(new) * old // new for new, old in zip(made, size, strict=True))
    assert np.array_equal(sample.labels, spread([0, 1, X], size)[rows[:, None], columns])
    assert abs(sample.rgb.mean() - rgb.mean()) < 2


def test_photo_that_lies_on_its_side_is_turned_before_sizes_are_compared(tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((6, 4, 3), np.uint8)).save(tmp_path / "images/a.jpg", exif=exif)
    grey(tmp_path / "labels/a.png", [0])
    (tmp_path / "classes.txt").write_text("a\n")
    assert open_dataset("folder", tmp_path).load(0).rgb.shape == (*SIZE, 3)


def test_data_set_can_be_sent_to_another_process_and_cut_short(tmp_path):
    build(tmp_path, "test/{}.png", "testannot/{}.png", None, grey, [0, 11])
    dataset = open_dataset("camvid-11", tmp_path)
    copy = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(copy.load(1).labels, dataset.load(1).labels)
    assert len(dataset.first(1)) == 1


def test_number_of_published_images_is_known(tmp_path):
    build(tmp_path, "val/{}.png", "valannot/{}.png", None, grey, [0])
    assert open_dataset("camvid-11", tmp_path, "val").published == 101


def test_camvid_has_its_701_photos(shared):
    counts = {split: len(open_dataset("camvid-11", shared / "data", split)) for split in ("train", "val", "test")}
    assert counts == {"train": 367, "val": 101, "test": 233}
