"""The strict JSON of bundle.json: what is written reads back equal, and anything else is refused by its key."""

import json

import pytest

from edgeseg.errors import BundleError
from edgeseg.schema import FileSpec, Gate, GraphSpec, Manifest, TensorSpec, from_json, parse_size, size_text, to_json
from tests.edgeseg.small_bundle import engine, graph, manifest

FULL = manifest(
    graphs=(graph(), graph("text", "fp32", None)),
    engines=(engine(graph(), gate=Gate(True, 0.9999, 0.998)), engine(graph("head"))),
    reference={"64x64": ("reference/64x64-0.npz",)},
    files={"tokenizer.json": FileSpec("ab" * 32, 12)},
)


def test_manifest_reads_back_equal_through_json_text():
    assert from_json(Manifest, json.loads(json.dumps(to_json(FULL)))) == FULL


def test_types_of_keys_are_looked_up_once(monkeypatch):
    value = to_json(FULL)
    from_json(Manifest, value)
    monkeypatch.setattr("typing.get_type_hints", None)
    assert from_json(Manifest, value) == FULL


def test_keys_with_defaults_may_be_missing():
    value = to_json(FULL)
    del value["engines"], value["graphs"][0]["axes"]
    assert from_json(Manifest, value).engines == ()


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("family", 3, "family: it is int, not str"),
        ("schema", True, "schema: it is bool, not int"),
        ("schema", 1.0, "schema: it is float, not int"),
        ("canvases", [[64]], "canvases[0]: it has 1 items, not 2"),
        ("canvases", [["64", 64]], "canvases[0][0]: it is str, not int"),
        ("canvases", "64x64", "canvases: it is str, not a list"),
        ("images", [], "images: it is list, not an object"),
        ("source", None, "source: it is NoneType, not an object"),
        ("recipe", 7, "recipe: it is int, not an object"),
        ("graphs", [{}], "graphs[0]: unknown keys [], missing keys"),
        ("colour", "red", "unknown keys ['colour']"),
    ],
)
def test_wrong_value_is_refused_by_its_key(key, value, found):
    with pytest.raises(BundleError) as caught:
        from_json(Manifest, {**to_json(FULL), key: value})
    assert found in str(caught.value).replace(": it", ": it")


def test_missing_key_is_named():
    value = to_json(FULL)
    del value["family"]
    with pytest.raises(BundleError, match="missing keys \\['family'\\]"):
        from_json(Manifest, value)


def test_error_about_a_huge_key_stays_short():
    with pytest.raises(BundleError) as caught:
        from_json(Manifest, {**to_json(FULL), "x" * 100_000: 1})
    assert len(str(caught.value)) < 1000


def test_whole_number_is_read_as_a_float_where_one_is_expected():
    assert type(from_json(Gate, {"passed": True, "cosine": 1}).cosine) is float


def test_dynamic_axis_is_a_name_and_fixed_one_a_number():
    spec = from_json(TensorSpec, {"name": "tokens", "dtype": "int32", "shape": ["N", 77]})
    assert spec.shape == ("N", 77)
    with pytest.raises(BundleError, match="shape"):
        from_json(TensorSpec, {"name": "tokens", "dtype": "int32", "shape": [None, 77]})


def test_canvas_none_is_kept():
    assert from_json(GraphSpec, to_json(graph(canvas=None))).canvas is None


@pytest.mark.parametrize(("text", "size"), [("640x864", (640, 864)), ("1x99999", (1, 99999))])
def test_size_reads_back_from_its_text(text, size):
    assert parse_size(text) == size
    assert size_text(size) == text
    assert size_text(None) == "any"


@pytest.mark.parametrize(
    "text", ["", "640", "640X864", "0x4", "-1x4", "640x864x3", "640x", "6e2x4", " 64x64", "64x64\n"]
)
def test_size_refuses_other_texts(text):
    with pytest.raises(ValueError, match="HEIGHTxWIDTH"):
        parse_size(text)
