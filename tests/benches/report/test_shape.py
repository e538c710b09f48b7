import pytest

from edgeseg.benches.report.shape import misfit

FORM = {"name": str, "rows": [{"value": float}, ...], "size": (int, None), "versions": {str: str}, "flag": bool}
GOOD = {"name": "a", "rows": [{"value": 1, "more": "x"}], "size": None, "versions": {"b": "1"}, "flag": True}


def test_value_of_the_form_fits_also_with_keys_that_are_not_named():
    assert misfit(GOOD, FORM) is None
    assert misfit({**GOOD, "size": 3, "other": []}, FORM) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": 3}, "name is no text"),
        ({"rows": []}, "rows is empty"),
        ({"rows": {}}, "rows is no list"),
        ({"rows": [{"value": 1.5}, {}]}, "rows[1] has no 'value'"),
        ({"rows": [{"value": True}]}, "rows[0].value is no number"),
        ({"rows": [{"value": 1e30}]}, "rows[0].value is no number"),
        ({"rows": [{"value": float("inf")}]}, "rows[0].value is no number"),
        ({"size": 1.5}, "size is no whole number"),
        ({"versions": {"b": 1}}, "versions.b is no text"),
        ({"flag": 1}, "flag is no true or false"),
    ],
)
def test_first_misfit_is_named_with_its_place(change, words):
    assert misfit({**GOOD, **change}, FORM) == words
