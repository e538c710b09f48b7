"""Graphs of one precision in two forms: which one is taken, and what a bundle refuses."""

import dataclasses

import pytest

from edgeseg.bundle import Bundle
from edgeseg.errors import BundleError
from edgeseg.selection import form_for
from tests.edgeseg.small_bundle import make


@pytest.fixture
def bundle(tmp_path):
    """A bundle whose fp16 graph sam is there in both forms, over one file."""
    bundle = make(tmp_path / "a.bundle")
    with bundle.edit() as edit:
        edit.add_graph(dataclasses.replace(bundle.graph("sam", "fp16", (64, 64)), form="plain"))
    return Bundle.open(bundle.path)


@pytest.mark.parametrize("form", ["typed", "plain"])
def test_the_form_asked_for_is_taken(bundle, form):
    assert bundle.graph("sam", "fp16", (64, 64), form).form == form


def test_without_asking_it_is_the_typed_one(bundle):
    assert bundle.graph("sam", "fp16", (64, 64)).form == "typed"


def test_where_there_is_one_form_it_is_taken(bundle):
    assert bundle.graph("sam", "fp32", (64, 64), "plain").form == "typed"


def test_a_graph_takes_the_place_of_its_own_form_only(bundle):
    with bundle.edit() as edit:
        edit.add_graph(dataclasses.replace(bundle.graph("sam", "fp16", (64, 64), "plain"), parameters=5))
    found = [g for g in bundle.manifest.graphs if (g.name, g.precision, g.canvas) == ("sam", "fp16", (64, 64))]
    assert sorted((graph.form, graph.parameters == 5) for graph in found) == [("plain", True), ("typed", False)]


def test_an_unknown_form_is_refused(bundle):
    with (
        pytest.raises(BundleError, match="the form is none of typed, plain"),
        bundle.edit() as edit,
    ):
        edit.add_graph(dataclasses.replace(bundle.graph("sam", "fp16", (64, 64)), form="crooked"))


@pytest.mark.parametrize(
    ("backend", "device", "form"),
    [
        ("onnxruntime", "cpu-x86_64", "plain"),
        ("onnxruntime", "cuda-ort1.31.1", "typed"),
        ("fake", "fake", "plain"),
        ("tensorrt", "sm87-trt10.3.0", "typed"),
        ("tensorrt_rtx", "sm89-rtx1.7.1", "typed"),
    ],
)
def test_a_cpu_takes_the_plain_form_and_a_gpu_the_typed_one(backend, device, form):
    assert form_for(backend, device) == form
