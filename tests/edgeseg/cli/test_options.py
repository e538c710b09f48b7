from typing import cast

import click
import numpy as np
import pytest
from click.testing import CliRunner

from edgeseg.cli.options import ClassRequest, classes_options, resolve_classes, vocabulary_option
from edgeseg.errors import InputError
from edgeseg.vocabulary import Vocabulary, VocabularyMaker


class RefusingMaker:
    def check(self, vocabulary):
        raise InputError("check", "it does not fit", "stop")


@pytest.fixture
def saved(tmp_path):
    made = Vocabulary(("cat", "dog"), np.eye(2, dtype=np.float32), np.array([1, 0], np.float32))
    made.save(tmp_path / "names.npz")
    return tmp_path / "names.npz"


def test_each_source_gives_its_names(tmp_path, saved):
    (tmp_path / "names.txt").write_text("road, route\n")
    assert resolve_classes("cat, dog").source.names == ("cat", "dog")
    assert resolve_classes(file=tmp_path / "names.txt").source.names == ("road, route",)
    assert len(resolve_classes(dataset="voc-20").source.names) == 20
    assert resolve_classes(vocabulary=saved).source.names == ("cat", "dog")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, "no option names any class"),
        ({"classes": "cat", "dataset": "voc-20"}, "--classes and --dataset are given together"),
        ({"classes": ""}, "is empty"),
        ({"classes": "cat", "training": ["cow"]}, "'cow' is none of the classes"),
        ({"classes": "cat, dog", "training": ["cat, dog"], "new": ["dog"]}, "'dog' is in both"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, found):
    with pytest.raises(InputError, match=found):
        resolve_classes(**options)


def test_training_and_new_classes_are_named_whole_or_between_commas():
    request = resolve_classes(dataset="ade20k-150", training=["road, route", "wall, sky"], new=["tree"])
    assert request.overlap == {"road, route": True, "wall": True, "sky": True, "tree": False}


def test_a_vocabulary_file_takes_overrides_and_is_checked_by_the_maker(saved):
    maker = cast(VocabularyMaker, RefusingMaker())
    request = resolve_classes(vocabulary=saved, new=["cat"], training=["dog"])
    assert isinstance(request.source, Vocabulary)
    assert request.source.overlap.tolist() == [0, 1]
    with pytest.raises(InputError, match="does not fit"):
        request.vocabulary(maker)


def test_the_options_arrive_under_the_names_that_resolve_classes_takes():
    seen: list[ClassRequest] = []

    @click.command()
    @vocabulary_option
    @classes_options
    def command(**options):
        seen.append(resolve_classes(**options))

    line = ["--classes", "cat, dog", "--training", "dog", "--training", "cat"]
    assert CliRunner().invoke(command, line, catch_exceptions=False).exit_code == 0
    assert seen[0].overlap == {"dog": True, "cat": True}
