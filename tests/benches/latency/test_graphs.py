"""The graphs alone, and batches of images."""

from dataclasses import replace

import numpy as np
import pytest

from edgeseg.backends.fake import FakeBackend
from edgeseg.benches.latency.classes import stand_in
from edgeseg.benches.latency.graphs import batched, check_batches, graph_runs
from edgeseg.benches.latency.subject import opened
from edgeseg.bundle import Bundle
from edgeseg.errors import InputError
from edgeseg.schema import Manifest
from edgeseg.selection import Request
from tests.benches.trees import photo
from tests.edgeseg.tiny_bundle import CANVASES, CHAIN, chain_spec, manifest

IMAGES = tuple(manifest().images)


def with_batches(graph, least=1, most=4):
    """The graph with a dynamic first axis wherever it had 1."""

    def free(tensors):
        return tuple(replace(t, shape=("B", *t.shape[1:])) if t.shape[0] == 1 else t for t in tensors)

    axes = {**graph.axes, "B": (least, least, most)}
    return replace(graph, inputs=free(graph.inputs), outputs=free(graph.outputs), axes=axes)


FIXED = [chain_spec(name, CANVASES[0]) for name in CHAIN]
FREE = [with_batches(graph) for graph in FIXED]


def test_batch_of_a_fixed_graph_is_refused_with_its_shape():
    with pytest.raises(InputError) as error:
        check_batches(FIXED, IMAGES, [1, 2])
    assert "the graph sam takes image_sam as 1x3x64x64, so its batch is fixed to 1" in str(error.value)
    assert "measure 2 images at once" in str(error.value)
    check_batches(FIXED, IMAGES, [1])


def test_batch_beyond_the_axis_is_refused():
    check_batches(FREE, IMAGES, [1, 4])
    with pytest.raises(InputError, match="its batch is 1 to 4"):
        check_batches(FREE, IMAGES, [5])


def test_one_fixed_tensor_among_free_ones_is_enough_to_refuse():
    mixed = [*FREE[:-1], FIXED[-1]]
    with pytest.raises(InputError, match="the graph score takes"):
        check_batches(mixed, IMAGES, [2])


def test_only_images_are_repeated():
    feed = {"image_sam": np.ones((1, 3, 4, 4)), "text": np.ones((7, 8))}
    made = batched(feed, ["image_sam"], 3)
    assert (made["image_sam"].shape, made["text"].shape) == ((3, 3, 4, 4), (7, 8))


@pytest.fixture
def batch_bundle(tmp_path):
    path = tmp_path / "free.bundle"
    canvas = CANVASES[0]
    described: Manifest = replace(manifest(), canvases=(canvas,))
    with Bundle.create(path, described) as edit:
        for graph in FREE:
            edit.stage(graph.file).write_bytes(b"no graph")
            edit.add_graph(graph)
    return path


@pytest.mark.parametrize("batch", [1, 3])
def test_graphs_run_with_a_batch_and_every_stage_is_timed(batch_bundle, tmp_path, batch):
    backend = FakeBackend()
    image = tmp_path / "photo.png"
    photo(image, 3, (64, 64))
    with opened(batch_bundle, Request(backend)) as subject:
        vocabulary = stand_in(subject.segmenter.bundle, 5)
        with graph_runs(subject.segmenter, image, vocabulary, None) as runs:
            runs.feed = batched(runs.feed, IMAGES, batch)
            stages = runs.once()
    shapes = {name: taken for name, taken in backend.calls}
    assert shapes["sam"]["image_sam"] == (batch, 3, 64, 64)
    assert shapes["score"]["text"] == (5, vocabulary.embeddings.shape[1])
    assert list(stages) == ["chain", "upload", "graphs", *CHAIN, "download"]
    assert stages["chain"] >= stages["upload"] + stages["graphs"] + stages["download"] - 1e-6
    assert all(runs.included(name) for name in stages)
