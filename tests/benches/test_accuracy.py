"""Scoring engines on a data set: the same exact counts in one process or several, at once or with interruptions."""

import numpy as np
import pytest

import edgeseg
from edgeseg.benches.accuracy import Options, compare, evaluate
from edgeseg.benches.datasets import open_dataset
from edgeseg.errors import InputError
from edgeseg.images import load
from tests.benches.conftest import SIZES, make_folder
from tests.benches.runs import counted_by_hand, unit_vocabulary
from tests.benches.trees import grey, listing, palette, photo
from tests.edgeseg.tiny_bundle import CLASSES, make_bundle

pytestmark = pytest.mark.onnx


def test_counts_are_those_of_a_loop_over_pixels(segmenter, dataset):
    result = evaluate(segmenter, dataset)
    assert np.array_equal(result.confusion, counted_by_hand(segmenter, dataset))
    assert result.images == len(SIZES)
    assert result.confusion.sum() == sum((dataset.load(i).labels >= 0).sum() for i in range(len(dataset)))
    assert result.confusion.diagonal().sum() not in (0, result.confusion.sum())


def test_classes_that_the_model_was_trained_on_are_told_apart(segmenter, dataset):
    assert evaluate(segmenter, dataset).seen == (True, True, False)
    vocabulary = segmenter.vocabulary(CLASSES, {"dog": False})
    result = evaluate(segmenter, dataset, vocabulary)
    assert result.seen == (True, False, False)
    assert result.seen_miou == result.iou[0]


def test_options_reach_the_segmenter(segmenter, dataset):
    options = Options(threshold=0.9, resize="none", canvas=(64, 96))
    found = evaluate(segmenter, dataset, options=options).confusion
    assert found[:, -1].sum() > 0
    expected = counted_by_hand(segmenter, dataset, threshold=0.9, resize="none", canvas=(64, 96))
    assert np.array_equal(found, expected)
    assert not np.array_equal(found[:, :-1], evaluate(segmenter, dataset).confusion[:, :-1])


def test_images_that_went_in_inexactly_are_counted(segmenter, dataset):
    recipe = evaluate(segmenter, dataset).count.inexact
    assert recipe == sum(not segmenter(load(item.image).rgb, CLASSES).exact for item in dataset.items)
    assert evaluate(segmenter, dataset, options=Options(resize="none")).count.inexact == len(dataset)


def make_voc(root, values):
    photo(root / "JPEGImages/a.jpg", size=(64, 96))
    palette(root / "SegmentationClass/a.png", values, (64, 96))
    listing(root / "ImageSets/Segmentation/val.txt", "a")
    return root


@pytest.mark.parametrize(("name", "prompts", "column"), [("voc-21", 21, 0), ("voc-20", 20, 20), ("pas-20b", 59, 20)])
def test_pixels_below_the_threshold_are_background_where_there_is_one(segmenter, tmp_path, name, prompts, column):
    dataset = open_dataset(name, make_voc(tmp_path, [0, 1, 20, 255]))
    found = evaluate(segmenter, dataset, unit_vocabulary(prompts), Options(threshold=2.0)).confusion
    assert found.shape[1] == {"voc-20": 21}.get(name, 22)
    assert found[:, column].sum() == found.sum() > 0


def test_prompts_beyond_the_scored_classes_count_as_background(segmenter, tmp_path):
    dataset, vocabulary = open_dataset("pas-20b", make_voc(tmp_path, [0])), unit_vocabulary(59)
    labels = segmenter(load(tmp_path / "JPEGImages/a.jpg").rgb, vocabulary).labels
    result = evaluate(segmenter, dataset, vocabulary)
    assert result.confusion[20, 20] == (labels >= 20).sum() > 0
    assert result.confusion[20, :20].sum() == (labels < 20).sum()
    assert result.seen == (*[False] * 20, None)


def test_error_of_an_image_names_it_and_comes_back_from_a_process(segmenter, tmp_path):
    dataset = open_dataset("folder", make_folder(tmp_path / "folder"))
    grey(tmp_path / "folder/labels/3.png", [7], SIZES[3])
    for processes in (1, 2):
        with pytest.raises(InputError, match=r"labels/3\.png: 6144 pixels have values that are no class"):
            evaluate(segmenter, dataset, processes=processes)


def test_image_that_does_not_fit_is_named(segmenter, dataset):
    with pytest.raises(InputError, match=r"images/2\.png: it is 40x90, is not to be resized"):
        evaluate(segmenter, dataset, options=Options(resize="none", canvas=(64, 64)))


def test_vocabulary_of_another_length_is_refused(segmenter, dataset):
    with pytest.raises(InputError, match="has 2 names and the data set asks for 3"):
        evaluate(segmenter, dataset, segmenter.vocabulary(["cat", "dog"]))


def test_images_without_labels_cannot_be_scored(segmenter, folder):
    with pytest.raises(InputError, match="it has no labels"):
        evaluate(segmenter, open_dataset("images", folder / "images"))


def test_engine_agrees_with_itself(segmenter, tiny_path, dataset):
    with edgeseg.open(tiny_path, backend="onnxruntime", threads=1) as other:
        result = compare(segmenter, other, dataset)
    assert (result.agreement, result.worst) == (100.0, 100.0)
    assert result.count.matrix.sum() == sum(height * width for height, width in SIZES)


def test_agreement_counts_equal_labels(segmenter, tmp_path, dataset):
    other_path = make_bundle(tmp_path / "other.bundle", ((64, 64),)).path
    equal, total, worst, inexact = 0, 0, 101.0, 0
    with edgeseg.open(other_path, backend="onnxruntime", threads=1) as other:
        for item in dataset.items:
            results = [one(load(item.image).rgb, CLASSES) for one in (segmenter, other)]
            mine, theirs = (result.labels for result in results)
            inexact += not all(result.exact for result in results)
            equal, total = equal + int((mine == theirs).sum()), total + mine.size
            worst = min(worst, 100 * float((mine == theirs).mean()))
        result = compare(segmenter, other, dataset)
        split = compare(segmenter, other, dataset, processes=2)
    assert 0 < equal < total
    assert result.agreement == pytest.approx(100 * equal / total)
    assert result.worst == pytest.approx(worst)
    assert np.array_equal(result.count.matrix, split.count.matrix)
    assert (result.count.matrix.shape, result.iou.shape) == ((4, 4), (3,))
    assert result.count.inexact == inexact > evaluate(segmenter, dataset).count.inexact


def test_engines_with_other_class_names_are_not_compared(segmenter, dataset):
    vocabularies = (segmenter.vocabulary(CLASSES), segmenter.vocabulary(CLASSES[::-1]))
    with pytest.raises(InputError, match="name different classes"):
        compare(segmenter, segmenter, dataset, vocabularies)


@pytest.mark.parametrize("processes", [0, -1])
def test_no_processes_are_refused(segmenter, dataset, processes):
    with pytest.raises(InputError, match="processes were asked for"):
        evaluate(segmenter, dataset, processes=processes)


def test_each_image_s_counts_add_up_to_the_matrix(segmenter, dataset):
    result = evaluate(segmenter, dataset, per_image=True, options=Options(threshold=0.5))
    table = np.concatenate(result.count.images)
    sums = [np.bincount(table[:, 0], table[:, column], len(CLASSES)) for column in (1, 2, 3)]
    matrix = result.confusion
    assert len(result.count.images) == len(dataset)
    assert np.array_equal(sums, [matrix.sum(1), matrix.sum(0)[:-1], np.diagonal(matrix)])
    assert (table[:, 1:] > 0).any(1).all()
    assert evaluate(segmenter, dataset).count.images is None
