"""Lists of classes per image, from a JSON file that anyone may have written."""

from pathlib import Path

import pytest

from edgeseg.cli.class_lists import read_class_lists
from edgeseg.cli.options import parse_settings
from edgeseg.errors import InputError


def lists(folder, text):
    (folder / "lists.json").write_text(text)
    return read_class_lists(folder / "lists.json")


def test_lists_are_found_by_file_name_or_stem(tmp_path):
    found = lists(tmp_path, '{"a.jpg": ["cat"], "b": ["dog", "car"]}')
    assert found.of(Path("photos/a.jpg")) == ("cat",)
    assert found.of(Path("b.png")) == ("dog", "car")
    with pytest.raises(InputError, match="names no c"):
        found.of(Path("c.png"))


def test_confident_names_are_taken_else_the_first(tmp_path):
    found = lists(tmp_path, '{"a": {"cat": 70, "dog": 71, "car": 99.5}, "b": {"cat": 1, "dog": 2}}')
    assert found.of(Path("a")) == ("dog", "car")
    assert found.of(Path("b")) == ("cat",)


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"a": []}', '{"a": [1]}', '{"a": "cat"}', '{"a": {"cat": "90"}}', "[" * 9999]
)
def test_other_files_are_refused(tmp_path, text):
    with pytest.raises(InputError, match="lists of classes"):
        lists(tmp_path, text)


def test_settings_are_split_at_the_first_sign():
    assert parse_settings(["rounds=2", "only=a=b, c"]) == {"rounds": "2", "only": "a=b, c"}
    with pytest.raises(InputError, match="NAME=VALUE"):
        parse_settings(["rounds"])
