import numpy as np
import pytest

from edgeseg.errors import InputError
from edgeseg.vocabulary.classes import class_list, data_lines, dataset_classes
from edgeseg.vocabulary.overlap import override, training_overlap

TRAINING = data_lines("training-coco-stuff-171.txt")
COUNTS = {
    "voc-20": 20,
    "pascal-context-59": 51,
    "pascal-context-459": 94,
    "ade20k-150": 67,
    "ade20k-847": 115,
    "coco-stuff-171": 171,
    "camvid-11": 7,
}


@pytest.mark.parametrize(("dataset", "count"), COUNTS.items())
def test_a_dataset_has_as_many_training_classes_as_the_authors_count(dataset, count):
    overlap = training_overlap(dataset_classes(dataset), TRAINING)
    assert overlap.dtype == np.float32
    assert overlap.sum() == count


def test_a_users_name_is_a_training_class_if_any_part_equals_a_training_string():
    classes = class_list(["cat", "Cat food", "route, road", "tabby cat", "wall wood"])
    assert training_overlap(classes, TRAINING).tolist() == [1, 0, 1, 0, 0]


def test_an_override_changes_only_the_named_classes():
    overlap = np.array([1, 0, 0], np.float32)
    assert override(overlap, ["a", "b", "c"], {"a": False, "c": True}).tolist() == [0, 0, 1]
    assert overlap.tolist() == [1, 0, 0]


@pytest.mark.parametrize("choices", [{"cow": True}, {"a": 2}, {"a": "yes"}])
def test_an_override_of_an_unknown_class_or_by_no_truth_value_is_refused(choices):
    with pytest.raises(InputError):
        override(np.zeros(1, np.float32), ["a"], choices)
