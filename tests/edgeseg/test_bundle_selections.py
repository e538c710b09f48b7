"""What must hold of selections, and of what engines say of themselves, in a manifest that may be hostile."""

import pytest

from edgeseg.bundle import Bundle
from edgeseg.errors import BundleError
from tests.edgeseg.small_bundle import engine, make, rewrite


@pytest.fixture
def bundle(tmp_path):
    return make(tmp_path / "a.bundle")


def refused(bundle, found):
    with pytest.raises(BundleError) as raised:
        Bundle.open(bundle.path)
    assert found in str(raised.value)


SELECTION = {
    "backend": "onnxruntime",
    "device": "cpu-x86_64",
    "precisions": {"sam": "fp32"},
    "canvases": [[64, 64]],
    "gate": {"passed": True, "cosine": 1.0},
    "engines": {},
    "report": "tokenizer.json",
}

CHANGES = {
    "selection": (
        lambda v: v.update(selections=[SELECTION | {"precisions": {"sam": "fp4"}}]),
        "precision of sam is none",
    ),
    "selection canvas": (lambda v: v.update(selections=[SELECTION | {"canvases": [[1, 1]]}]), "a canvas is not among"),
    "selection report": (
        lambda v: v.update(selections=[SELECTION | {"report": "no.json"}]),
        "files does not list no.json",
    ),
    "selection twice": (lambda v: v.update(selections=[SELECTION, SELECTION]), "is there twice"),
    "selection gate": (
        lambda v: v.update(selections=[SELECTION | {"gate": {"passed": True, "cosine": 1.0, "agreement": 2.0}}]),
        "numbers that cannot be",
    ),
}


@pytest.mark.parametrize(("change", "found"), CHANGES.values(), ids=CHANGES)
def test_a_selection_that_cannot_be_is_refused(bundle, change, found):
    rewrite(bundle.path, change)
    refused(bundle, found)


def test_a_selection_that_can_be_is_read(bundle):
    rewrite(bundle.path, lambda value: value.update(selections=[SELECTION]))
    (selection,) = Bundle.open(bundle.path).manifest.selections
    assert (selection.precisions, selection.canvases) == ({"sam": "fp32"}, ((64, 64),))


@pytest.mark.parametrize(
    ("change", "found"),
    [({"report": "no.json"}, "files does not list no.json"), ({"layers": {"gemm": {"int8": -1}}}, "a negative number")],
)
def test_an_engine_that_cannot_be_is_refused(bundle, change, found):
    spec = engine(bundle.graph("sam", "fp32", (64, 64)))
    value = {**vars(spec), "canvas": [64, 64], "data": [], "file": "tokenizer.json", **change}
    rewrite(bundle.path, lambda manifest: manifest.update(engines=[value]))
    refused(bundle, found)
