import pytest

from edgeseg.benches.latency.sweep import Sweeps, parse_sweeps
from edgeseg.errors import InputError


def test_both_axes():
    assert parse_sweeps(["classes=1, 10,150", "batch=2"]) == Sweeps((1, 10, 150), (2,))
    assert parse_sweeps([]) == Sweeps()


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["size=1"], "'size' is neither of classes and batch"),
        (["classes"], "'' is no number"),
        (["classes=1,x"], "'x' is no number"),
        (["classes=0"], "'0' is no number from 1"),
        (["batch=-1"], "'-1' is no number"),
        (["batch=²"], "is no number"),
        (["batch=1", "batch=2"], "given twice"),
    ],
)
def test_nonsense_is_refused_with_an_example(texts, found):
    with pytest.raises(InputError, match=found) as error:
        parse_sweeps(texts)
    assert "classes=1,10,150" in error.value.todo
