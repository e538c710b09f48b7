"""Every data set that edgeseg scores: its classes, its splits, and the forms in which it lies on a disk.

The forms are tried in their order: first the one that was published, then those that others prepare from it. A result
names the form that was read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from .label_map import IGNORE, LabelMap, counted, listed
from .layout import Layout
from .readers import read_ade_full, read_label_map
from .scoring import Scoring, from_file, plain, unlabelled, voc_with_context, with_background

_VOID = (255,)
_VOID16 = (65535,)


@dataclass(frozen=True)
class Row:
    """A data set.

    Attributes:
        scoring: its classes, given its root.
        layouts: its forms.
        splits: as they are called on disk, the usual one for scores first; empty where a user's folder may have any.
        homes: folders below a root that is shared with other data sets.
        published: how many images a split has.
    """

    scoring: Callable[[Path], Scoring]
    layouts: tuple[Layout, ...]
    splits: tuple[str, ...] = ()
    homes: tuple[str, ...] = ()
    published: Mapping[str, int] = field(default_factory=dict)


def _ade20k_150() -> Row:
    images, splits = "images/{split}", ("validation", "training")
    layouts = (
        Layout("published", images, "annotations/{split}", ".png", counted(150, 1, (0, 255))),
        Layout("detectron2", images, "annotations_detectron2/{split}", ".png", counted(150, 0, _VOID)),
    )
    counts = {"validation": 2000, "training": 20210}
    return Row(partial(plain, name="ade20k-150"), layouts, splits, ("ADEChallengeData2016",), counts)


def _ade20k_847() -> Row:
    folder, jpeg = "images/ADE/{split}", (".jpg",)
    ids = LabelMap(listed("ade20k-847.txt"), others=IGNORE)
    made, labels = "images_detectron2/{split}", "annotations_detectron2/{split}"
    layouts = (
        Layout("published", folder, folder, "_seg.png", ids, read_ade_full, suffixes=jpeg, short_side=512),
        Layout("detectron2", made, labels, ".tif", counted(847, 0, _VOID16)),
    )
    counts = {"validation": 2000, "training": 25574}
    splits = ("validation", "training")
    return Row(partial(plain, name="ade20k-847"), layouts, splits, ("ADE20K_2021_17_01",), counts)


_CONTEXT_LISTS = ("pascalcontext_{split}.txt", "ImageSets/SegmentationContext/{split}.txt", "{split}.txt")


def _context(name: str, scoring: Callable[[Path], Scoring], layouts: tuple[Layout, ...]) -> Row:
    return Row(scoring, layouts, ("val", "train"), ("VOCdevkit/VOC2010", "VOC2010", name), {"val": 5104, "train": 4996})


def _context_png(values: LabelMap) -> Layout:
    lists = ("ImageSets/SegmentationContext/{split}.txt", "pascalcontext_{split}.txt")
    return Layout("mmsegmentation", "JPEGImages", "SegmentationClassContext", ".png", values, lists=lists)


def _context_mat(values: LabelMap) -> Layout:
    return Layout("published", "JPEGImages", "trainval", ".mat", values, read_label_map, lists=_CONTEXT_LISTS)


def _context_prepared(classes: int, ending: str, ignored: tuple[int, ...]) -> tuple[Layout, Layout]:
    values, folder = counted(classes, 0, ignored), f"annotations_detectron2/pc{classes}_{{split}}"
    return (
        Layout("ebseg", "{split}/image", "{split}/label", ending, values),
        Layout("detectron2", "JPEGImages", folder, ending, values, by_labels=True),
    )


def _context_59() -> Row:
    ids = LabelMap(listed("pascal-context-59.txt"), others=IGNORE, limit=460)
    layouts = (_context_mat(ids), _context_png(counted(59, 1, (0, 255))), *_context_prepared(59, ".png", _VOID))
    return _context("pascal-context-59", partial(plain, name="pascal-context-59"), layouts)


def _context_60() -> Row:
    ids = LabelMap((-1, *listed("pascal-context-59.txt")), others=0, limit=460)
    layouts = (_context_mat(ids), _context_png(counted(60, 0, _VOID)))
    return _context("pascal-context-60", partial(with_background, name="pascal-context-59"), layouts)


def _context_459() -> Row:
    layouts = (_context_mat(counted(459, 1, (0,))), *_context_prepared(459, ".tif", (459, 65535)))
    return _context("pascal-context-459", partial(plain, name="pascal-context-459"), layouts)


def _voc(scoring: Callable[[Path], Scoring], values: LabelMap, *prepared: Layout) -> Row:
    lists = ("ImageSets/Segmentation/{split}.txt",)
    forms = (("published", "SegmentationClass"), ("augmented", "SegmentationClassAug"))
    layouts = tuple(Layout(name, "JPEGImages", folder, ".png", values, lists=lists) for name, folder in forms)
    homes = ("VOCdevkit/VOC2012", "VOC2012")
    return Row(scoring, (*layouts, *prepared), ("val", "train", "trainval"), homes, {"val": 1449, "train": 1464})


def _voc_prepared(name: str, images: str, folder: str, classes: int) -> Layout:
    return Layout(name, images, f"{folder}/{{split}}", ".png", counted(classes, 0, _VOID), by_labels=True)


def _voc_20() -> Row:
    prepared = [
        _voc_prepared("ebseg", "images_detectron2/{split}", "annotations_detectron2", 20),
        _voc_prepared("detectron2", "JPEGImages", "annotations_detectron2", 20),
    ]
    return _voc(partial(plain, name="voc-20"), counted(20, 1, (0, 255)), *prepared)


def _voc_21() -> Row:
    return _voc(partial(with_background, name="voc-20"), counted(21, 0, _VOID))


def _pas_20b() -> Row:
    prepared = _voc_prepared("detectron2", "JPEGImages", "annotations_detectron2_bg", 21)
    return _voc(voc_with_context, LabelMap((*range(1, 21), 0), _VOID), prepared)


def _coco(scoring: Callable[[Path], Scoring], values: LabelMap, *prepared: Layout) -> Row:
    layouts = (
        Layout("published", "{split}", "stuffthingmaps/{split}", ".png", values),
        Layout("cocostuff", "images/{split}", "annotations/{split}", ".png", values, skip="TrainIds.png"),
        *prepared,
    )
    homes = ("coco", "coco-stuff", "coco_stuff164k")
    return Row(scoring, layouts, ("val2017", "train2017"), homes, {"val2017": 5000, "train2017": 118287})


def _coco_stuff() -> Row:
    values = counted(171, 0, _VOID)
    prepared = (
        Layout("mmsegmentation", "images/{split}", "annotations/{split}", "_labelTrainIds.png", values),
        Layout("detectron2", "{split}", "stuffthingmaps_detectron2/{split}", ".png", values, by_labels=True),
    )
    return _coco(partial(plain, name="coco-stuff-171"), LabelMap(listed("coco-stuff-171.txt"), _VOID), *prepared)


def _coco_object() -> Row:
    things = LabelMap((-1, *listed("coco-stuff-171.txt")[:80]), others=0, limit=256)
    return _coco(partial(with_background, name="coco-stuff-171", count=80), things)


def _camvid() -> Row:
    values = counted(11, 0, (11,))
    layouts = (
        Layout("segnet", "{split}", "{split}annot", ".png", values),
        Layout("folders", "{split}/images", "{split}/labels", ".png", values),
    )
    counts = {"test": 233, "train": 367, "val": 101}
    return Row(partial(plain, name="camvid-11"), layouts, tuple(counts), ("CamVid", "camvid"), counts)


def _folder() -> Row:
    return Row(from_file, (Layout("folders", "{split}/images", "{split}/labels", ".png", None),))


def _images() -> Row:
    suffixes = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
    return Row(unlabelled, (Layout("images", "{split}", None, "", None, suffixes=suffixes),))


ROWS: dict[str, Callable[[], Row]] = {
    "ade20k-150": _ade20k_150,
    "ade20k-847": _ade20k_847,
    "pascal-context-59": _context_59,
    "pascal-context-60": _context_60,
    "pascal-context-459": _context_459,
    "voc-20": _voc_20,
    "voc-21": _voc_21,
    "pas-20b": _pas_20b,
    "coco-stuff-171": _coco_stuff,
    "coco-object": _coco_object,
    "camvid-11": _camvid,
    "folder": _folder,
    "images": _images,
}
