"""Runs of an image on a real and on a fake bundle: what the stages are, and that they add up."""

import numpy as np
import pytest
from PIL import Image

from edgeseg.backends import cuda
from edgeseg.backends.base import Probe
from edgeseg.backends.cuda.fake import FakeCuda
from edgeseg.backends.fake import FakeBackend
from edgeseg.benches.latency.classes import first, stand_in
from edgeseg.benches.latency.image import ImageRuns
from edgeseg.benches.latency.spans import HOST_CLOCK
from edgeseg.benches.latency.subject import InOrder, on_gpu, opened
from edgeseg.errors import InputError
from edgeseg.selection import Request
from tests.benches.trees import photo
from tests.edgeseg.tiny_bundle import CHAIN

WHOLE = ["read", "preprocess", "upload", "graphs", "download", "compose", "write", "other"]
TOTALS = ["end_to_end", "segment"]


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "photo.png"
    photo(path, 3, (40, 70))
    return path


def runs_of(subject, image, folder, count=5, **options):
    vocabulary = stand_in(subject.segmenter.bundle, count)
    return ImageRuns(subject.segmenter, image, vocabulary, folder, options)


@pytest.mark.onnx
def test_stages_add_up_to_the_total(tiny_path, image, tmp_path):
    with opened(tiny_path, Request("onnxruntime", threads=1)) as subject:
        runs = runs_of(subject, image, tmp_path)
        # The least disturbed of some: between two stages, too, another program may get the CPU.
        stages = min((runs.once() for _ in range(15)), key=lambda run: run["other"] / run["end_to_end"])
    assert list(stages) == [*TOTALS, *WHOLE[:4], *CHAIN, *WHOLE[4:]]
    assert sum(stages[name] for name in WHOLE) == pytest.approx(stages["end_to_end"])
    # What belongs to no stage is small, and the graphs together are the graphs one by one.
    assert 0 <= stages["other"] <= 0.05 * stages["end_to_end"]
    assert 0 <= stages["graphs"] - sum(stages[name] for name in CHAIN) <= 0.5 * stages["graphs"]
    assert stages["segment"] <= stages["end_to_end"] - stages["read"] - stages["write"] + 0.01
    assert {runs.clock(name) for name in stages} == {HOST_CLOCK}
    assert [name for name in stages if runs.part_of(name) == "graphs"] == list(CHAIN)


@pytest.mark.onnx
def test_results_are_those_of_the_segmenter(tiny_path, image, tmp_path):
    with opened(tiny_path, Request("onnxruntime")) as subject:
        runs = runs_of(subject, image, tmp_path, canvas=(64, 96))
        runs.once()
        expected = subject.segmenter(image, runs.vocabulary, canvas=(64, 96)).labels
    assert runs.last is not None
    assert runs.last.masks.placement.canvas == (64, 96)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "result.labels.png")), expected)


def test_every_stage_says_what_it_includes(fake_bundle, image, tmp_path):
    with opened(fake_bundle.path, Request(FakeBackend())) as subject:
        runs = runs_of(subject, image, tmp_path)
        for name in runs.once():
            for gpu in (True, False):
                assert runs.included(name, on_gpu=gpu, in_order=gpu)
    assert "overlap" in runs.included("sam", on_gpu=True, in_order=False)
    assert runs.included("sam", on_gpu=True, in_order=True) == "the engine"


@pytest.mark.parametrize("in_order", [True, False])
def test_graphs_overlap_unless_they_are_to_run_in_order(fake_bundle, in_order):
    asked: list[int] = []

    class Counting(FakeBackend):
        def streams(self, count, device=0):
            asked.append(count)
            return super().streams(count, device)

    with opened(fake_bundle.path, Request(Counting()), in_order=in_order) as subject:
        assert subject.describe()["backend"] == "fake"
        assert isinstance(subject.plan.backend, InOrder) is in_order
    assert asked == [1 if in_order else 2]


def test_place_of_a_gpu_watches_its_memory(fake_bundle, monkeypatch):
    device = FakeCuda()
    monkeypatch.setattr(cuda, "LAYERS", (lambda index: device,))
    monkeypatch.setattr("edgeseg.benches.machine.nvml.LIBRARY", "libno-such-driver.so.1")

    class Gpu(FakeBackend):
        def probe(self, device=0):
            return Probe(True, "sm87-trt10.3.0", "Orin", {"fake": "1"})

    with opened(fake_bundle.path, Request(Gpu())) as subject:
        assert on_gpu(subject.plan)
        assert subject.place.on_gpu
        with device.current():
            device.allocate(4096)
        assert subject.place.device is not None
        assert subject.place.device.taken_bytes() == 4096
        assert subject.describe()["device_name"] == "Orin"


def test_stand_ins_are_unit_vectors_and_always_the_same(fake_bundle):
    one, two = (stand_in(fake_bundle, 7) for _ in range(2))
    assert np.array_equal(one.embeddings, two.embeddings)
    assert len(set(one.names)) == 7
    assert np.allclose(np.linalg.norm(one.embeddings, axis=1), 1)


def test_first_classes_of_a_vocabulary(fake_bundle):
    whole = stand_in(fake_bundle, 7)
    few = first(whole, 3)
    assert few.names == whole.names[:3]
    assert np.array_equal(few.embeddings, whole.embeddings[:3])
    assert np.array_equal(few.overlap, whole.overlap[:3])
    with pytest.raises(InputError, match="measure with 8 classes: 7 are named"):
        first(whole, 8)
