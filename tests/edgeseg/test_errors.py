"""Errors: three parts on one line, and an exit code of its own for each class."""

import pickle

import pytest

from edgeseg import errors
from edgeseg.errors import EdgesegError

CLASSES: list[type[EdgesegError]] = [EdgesegError, *EdgesegError.__subclasses__()]


def test_message_joins_what_was_asked_found_and_to_do_on_one_line():
    error = errors.BundleError("read\na.bundle", "it  is damaged", "copy it again")
    assert str(error) == "cannot read a.bundle: it is damaged; copy it again"
    assert (error.asked, error.found, error.todo) == ("read a.bundle", "it is damaged", "copy it again")


@pytest.mark.parametrize("kind", CLASSES)
def test_error_survives_the_way_from_another_process(kind):
    error = pickle.loads(pickle.dumps(kind("a", "b", "c")))
    assert type(error) is kind
    assert (error.asked, error.found, error.todo, str(error)) == ("a", "b", "c", "cannot a: b; c")


def test_every_class_has_an_exit_code_of_its_own():
    codes = [kind.exit_code for kind in CLASSES]
    assert len(set(codes)) == len(codes)
    assert not {0, 2, errors.INTERRUPTED} & set(codes)


@pytest.mark.parametrize("kind", CLASSES)
def test_module_docstring_lists_the_class_with_its_code(kind):
    lines = [line.split() for line in (errors.__doc__ or "").splitlines()]
    assert any(kind.__name__ in line and str(kind.exit_code) in line for line in lines)
