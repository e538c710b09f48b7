import json

import pytest

from edgeseg.errors import InputError
from edgeseg.vocabulary.classes import (
    DATASETS,
    class_list,
    data_lines,
    dataset_classes,
    parse_classes,
    read_class_file,
)


def test_names_between_commas_are_stripped():
    assert parse_classes(" cat, wooden  table ,dog").names == ("cat", "wooden  table", "dog")


def test_a_line_of_a_file_is_one_name_with_its_commas_and_hash_signs(tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes(b"\xef\xbb\xbfroad, route\r\n# 3\n caf\xc3\xa9 \n")
    assert read_class_file(path).names == ("road, route", "# 3", "café")


@pytest.mark.parametrize("classes", ["ade20k-150", " ade20k-150 "])
def test_the_name_of_a_dataset_alone_stands_for_its_classes(classes):
    assert len(class_list(classes).names) == 150


def test_a_list_in_python_takes_each_name_whole():
    assert class_list(["road, route", "ade20k-150"]).names == ("road, route", "ade20k-150")


def test_a_users_synonyms_are_the_parts_between_commas():
    assert class_list(["road, route", "cat"]).synonyms == (("road", "route"), ("cat",))


@pytest.mark.parametrize(
    ("classes", "found"),
    [
        ("", "is empty"),
        ([], "is empty"),
        ("cat,,dog", "class 2 has an empty name"),
        (["cat", "  "], "class 2 has an empty name"),
        ("cat, dog, cat", "'cat' and 'cat' are the same prompt"),
        (["café", "cafe\u0301"], "are the same prompt"),
        (["cat", "\ufeff"], "class 2 has an empty name"),
        (["Traffic Light", "traffic  light"], "'Traffic Light' and 'traffic light' are the same prompt"),
        (["cat", 3], "class 2 is int, not text"),
        (["cat\x1b[31m"], "U+001B"),
        (["a\nb"], "U+000A"),
        (["cat", "\n"], "U+000A"),
        (["a\u2028b"], "U+2028"),
        (["a\ud800b"], "U+D800"),
    ],
)
def test_unusable_names_are_refused(classes, found):
    with pytest.raises(InputError) as caught:
        class_list(classes)
    assert found in caught.value.found


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"cat\n\ndog\n", "class 2 has an empty name"),
        (b"cat\n\xff\xfe", "byte 4 is not UTF-8"),
        (b"cat\x00dog", "U+0000"),
        (b"a" * (1 << 20) + b"b", "larger than"),
    ],
)
def test_unusable_files_are_refused(tmp_path, content, found):
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_class_file(path)
    assert found in caught.value.found
    assert "names.txt" in caught.value.asked


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(InputError, match="give a readable text file"):
            read_class_file(path)


def test_an_unknown_dataset_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="voc-20"):
        dataset_classes("../voc-20")


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_dataset_holds_as_many_sound_names_as_it_says(dataset):
    classes = dataset_classes(dataset)
    assert len(classes.names) == int(dataset.rpartition("-")[2]) == len(classes.synonyms)
    assert class_list(classes.names).names == classes.names
    assert all(classes.synonyms)


def test_the_data_files_hold_the_given_facts(shared):
    facts = json.loads((shared / "data" / "class_names.json").read_text())
    assert data_lines("training-coco-stuff-171.txt") == facts.pop("training_strings")
    assert data_lines("templates-vild.txt") == facts.pop("vild_templates")
    for dataset, fact in facts.items():
        classes = dataset_classes(dataset)
        assert list(classes.names) == fact["prompt_names"]
        assert list(map(list, classes.synonyms)) == fact["synonyms_for_training_overlap"]
    assert sorted(facts) == sorted(set(DATASETS) - {"camvid-11"})
    camvid = (shared / "data" / "camvid" / "classes.txt").read_text().split("\n")
    assert list(dataset_classes("camvid-11").names) == [name for name in camvid if name]
