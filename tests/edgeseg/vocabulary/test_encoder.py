import dataclasses

import numpy as np
import pytest

from edgeseg.errors import BackendError, BundleError
from edgeseg.vocabulary.encoder import TextEncoder, extent

pytestmark = pytest.mark.onnx

TEXTS = ["a", "a very long prompt of a cat", "dog", "wooden table", "cat", "x y z"]


@pytest.fixture
def graph(bundle):
    return bundle.manifest.graphs[0]


@pytest.fixture
def session(bundle, graph):
    return bundle.open_session(graph, bundle.graph_files(graph))


def test_batches_by_length_give_what_each_prompt_padded_to_the_context_gives(bundle, graph, session, tokenizer):
    rows = [tokenizer.tokenize(text) for text in TEXTS]
    made = TextEncoder(session, graph, tokenizer).encode(rows)
    alone = [session.run(tokenizer.inputs([row], 40))["text_embedding"][0] for row in rows]
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, alone, atol=1e-6)


def test_a_batch_has_the_usual_size_and_is_padded_only_to_its_longest(bundle, graph, session, tokenizer):
    TextEncoder(session, graph, tokenizer).encode([tokenizer.tokenize(text) for text in TEXTS])
    assert bundle.runs == [(4, 5), (2, 22)]


def test_a_graph_of_fixed_or_least_extents_gets_full_batches(bundle, graph, session, tokenizer):
    narrow = dataclasses.replace(graph, axes={"N": (3, 3, 3), "T": (30, 40, 40)})
    made = TextEncoder(session, narrow, tokenizer).encode([tokenizer.tokenize(text) for text in TEXTS[:4]])
    assert bundle.runs == [(3, 30), (3, 30)]
    assert made.shape == (4, 8)


def test_fixed_extents_are_read_and_missing_ones_refused(graph):
    tokens = dataclasses.replace(graph.inputs[0], shape=(16, 77))
    assert extent(dataclasses.replace(graph, inputs=(tokens,)), 1) == (77, 77, 77)
    for broken in (dataclasses.replace(graph, axes={}), dataclasses.replace(graph, inputs=())):
        with pytest.raises(BundleError, match=r"text\.onnx"):
            extent(broken, 0)


@pytest.mark.parametrize("output", [np.full((1, 8), np.nan), np.zeros((2, 8)), np.zeros(8)])
def test_an_engine_that_gives_no_usable_numbers_is_refused(graph, session, tokenizer, monkeypatch, output):
    monkeypatch.setattr(session, "run", lambda inputs: {"text_embedding": output.astype(np.float32)})
    with pytest.raises(BackendError, match="edgeseg verify"):
        TextEncoder(session, graph, tokenizer).encode([tokenizer.tokenize("cat")])
