import threading
from dataclasses import replace

import numpy as np
import pytest

import edgeseg
from edgeseg.backends.fake import FakeBackend
from edgeseg.chains import Chains
from edgeseg.compose import NONE_LABEL
from edgeseg.errors import BackendError, BundleError, EdgesegError, GateError, InputError
from edgeseg.preprocess import preprocess, resize_rgb
from edgeseg.reference import Limits, Report, TensorCheck
from edgeseg.schema import EngineSpec
from edgeseg.segmentation import Masks
from edgeseg.selection import Plan, Request, choose
from edgeseg.vocabulary import Vocabulary
from tests.edgeseg.tiny_bundle import CHAIN, CLASSES, add_references, make_bundle, make_fake_bundle
from tests.edgeseg.vocabulary.tiny import DIMENSIONS

RGB = np.random.default_rng(1).integers(0, 256, (50, 90, 3)).astype(np.uint8)


def vocabulary(names=("a", "b", "c")) -> Vocabulary:
    vectors = np.eye(len(names), DIMENSIONS, dtype=np.float32)
    return Vocabulary(tuple(names), vectors, np.zeros(len(names), np.float32))


@pytest.fixture
def fake(fake_bundle):
    with edgeseg.open(fake_bundle.path, backend=FakeBackend()) as segmenter:
        yield segmenter


@pytest.mark.onnx
def test_image_and_names_become_a_label_map(tiny):
    with edgeseg.open(tiny.path) as segmenter:
        result = segmenter(RGB, classes=CLASSES)
    assert result.labels.shape == RGB.shape[:2]
    assert result.labels.dtype == np.uint16
    assert result.names == tuple(CLASSES)
    assert sum(result.areas.values()) == RGB.shape[0] * RGB.shape[1]
    assert {"read", "vocabulary", "preprocess", "chain", "chain.sam", "compose"} <= set(result.timings_ms)


@pytest.mark.onnx
def test_masks_and_class_probs_give_the_scores_of_the_labels(tiny):
    with edgeseg.open(tiny.path) as segmenter:
        result = segmenter(RGB, classes=CLASSES)
        masks = segmenter.masks(RGB, classes=CLASSES)
    assert isinstance(masks, Masks)
    assert masks.logits.shape[1:] == (16, 24)
    assert masks.valid == (-(-16 * 53 // 64), 24)
    assert masks.class_probs.shape == (5, 3)
    for y, x, scores in masks.scores():
        assert np.array_equal(result.labels[y, x], scores.argmax(2))


@pytest.mark.onnx
def test_threshold_gives_none_of_these(tiny):
    with edgeseg.open(tiny.path) as segmenter:
        scores = segmenter(RGB, CLASSES, threshold=0.0).scores
        assert scores is not None
        result = segmenter(RGB, CLASSES, threshold=float(np.median(scores)))
    assert (result.labels == NONE_LABEL).any()
    assert result.none_pixels + sum(result.areas.values()) == result.labels.size


@pytest.mark.onnx
def test_both_canvases_are_used_and_exactness_is_said(tiny):
    with edgeseg.open(tiny.path) as segmenter:
        square = segmenter(np.zeros((30, 30, 3), np.uint8), CLASSES)
        wide = segmenter(RGB, CLASSES)
    assert (square.masks.placement.canvas, square.exact, square.reason) == ((64, 64), True, None)
    assert wide.masks.placement.canvas == (64, 96)
    assert "64x128" in str(wide.reason)


@pytest.mark.onnx
def test_text_encoder_runs_once_per_class_list(tiny, monkeypatch):
    with edgeseg.open(tiny.path) as segmenter:
        calls, opener = [], Plan.open_text

        def counting(plan, bundle, graph):
            calls.append(graph.name)
            return opener(plan, bundle, graph)

        monkeypatch.setattr(Plan, "open_text", counting)
        first = segmenter(RGB, CLASSES)
        second = segmenter(RGB, list(CLASSES))
        segmenter(RGB, "cat, dog")
    assert calls == ["text"]  # for the second list both names come from the cache
    assert np.array_equal(first.labels, second.labels)


@pytest.mark.onnx
def test_overlap_can_be_overridden(tiny):
    with edgeseg.open(tiny.path) as segmenter:
        seen = segmenter.vocabulary(["sofa"], {"sofa": True}).overlap
        assert (segmenter.vocabulary(["sofa"]).overlap.tolist(), seen.tolist()) == ([0], [1])
        plain, forced = (segmenter.masks(RGB, ["sofa", "x"], **o) for o in ({}, {"overlap": {"sofa": True}}))
    assert not np.array_equal(plain.arrays()["class_probs"], forced.arrays()["class_probs"])


@pytest.mark.onnx
@pytest.mark.parametrize(("classes", "word"), [([], "class"), (["a", "a"], "a"), ("", "class")])
def test_bad_class_lists_are_one_clear_error(tiny, classes, word):
    with edgeseg.open(tiny.path) as segmenter, pytest.raises(InputError, match=word):
        segmenter(RGB, classes)


@pytest.mark.onnx
def test_same_names_again_are_not_even_looked_up(tiny, monkeypatch):
    with edgeseg.open(tiny.path) as segmenter:
        segmenter(RGB, CLASSES)
        monkeypatch.setattr(segmenter, "vocabulary", None)
        assert segmenter(RGB, list(CLASSES)).names == tuple(CLASSES)


def test_vocabulary_made_before_needs_no_text_encoder(fake):
    assert fake(RGB, vocabulary()).names == ("a", "b", "c")


def test_another_vocabulary_of_the_same_names_is_not_mistaken(fake_bundle):
    backend = FakeBackend({"score": lambda feed: {"class_probs": np.tile(feed["text"][:, 0], (1, 5, 1))}})
    with edgeseg.open(fake_bundle.path, backend=backend) as segmenter:
        for order in ([0, 1], [1, 0], [0, 1]):
            made = Vocabulary(("a", "b"), np.eye(2, DIMENSIONS, dtype=np.float32)[order], np.zeros(2, np.float32))
            assert segmenter(RGB, made).labels[0, 0] == order.index(0)
            del made


def test_image_options_reach_the_reader(fake):
    with pytest.raises(InputError, match="limit is 10"):
        fake(RGB, vocabulary(), max_pixels=10)
    assert fake((RGB.astype(np.uint16) << 8), vocabulary(), bits16="scale").notes
    with pytest.raises(TypeError, match="colour"):
        fake(RGB, vocabulary(), colour="red")


def test_two_canvases_stay_open_and_the_one_not_used_is_closed(fake_bundle):
    closed = []

    class Closing(FakeBackend):
        def open(self, engine, graph, device=0):
            session = super().open(engine, graph, device)
            setattr(session, "close", lambda: closed.append((graph.name, graph.canvas)))  # noqa: B010  # mypy
            return session

    canvases = ((32, 32), (32, 64), (64, 64))
    bundle = make_fake_bundle(fake_bundle.path.parent / "three.bundle", canvases)
    chains = Chains(bundle, choose(bundle, CHAIN, Request(Closing())), CHAIN)
    chain = chains.chain(canvases[0])
    chains.chain(canvases[1])
    assert chains.chain(canvases[0]) is chain
    assert not closed
    chains.chain(canvases[2])
    assert {canvas for _, canvas in closed} == {canvases[1]}
    chains.close()
    assert len(closed) == 13  # four graphs on each of three canvases, and score once


def test_use_from_a_second_thread_at_once_is_refused(fake_bundle):
    inside, leave, errors = threading.Event(), threading.Event(), []

    def slow(feed):
        inside.set()
        leave.wait(10)
        return {"class_probs": np.zeros((1, 5, 3), np.float32)}

    with edgeseg.open(fake_bundle.path, backend=FakeBackend({"score": slow})) as segmenter:
        thread = threading.Thread(target=lambda: errors.append(segmenter(RGB, vocabulary())))
        thread.start()
        inside.wait(10)
        with pytest.raises(EdgesegError, match="another thread"):
            segmenter(RGB, vocabulary())
        leave.set()
        thread.join()
        assert len(errors) == 1
        segmenter(RGB, vocabulary())


def test_closed_segmenter_is_refused(fake):
    fake.close()
    with pytest.raises(EdgesegError, match="closed"):
        fake(RGB, vocabulary())


def test_engine_that_gives_no_numbers_is_an_error(fake_bundle):
    backend = FakeBackend({"score": lambda feed: {"class_probs": np.full((1, 5, 3), np.nan, np.float32)}})
    with edgeseg.open(fake_bundle.path, backend=backend) as segmenter, pytest.raises(BackendError, match="class_probs"):
        segmenter(RGB, vocabulary())


def test_unknown_family_is_refused(fake_bundle):
    with fake_bundle.edit() as edit:
        edit.manifest = replace(edit.manifest, family="other")
    with pytest.raises(BundleError, match="'other'"):
        edgeseg.open(fake_bundle.path)


def ungated_bundle(path, wrong: str | None = None):
    """Engines for onnxruntime that have not run; the one named `wrong` is another graph's file with the same wiring."""
    bundle = make_bundle(path)
    with bundle.edit() as edit:
        for graph in bundle.manifest.graphs:
            content = bundle.graph_files(graph).read_bytes()
            file = f"engines/onnxruntime-cpu/fp32/{graph.file.split('/')[-1]}"
            edit.stage(file).write_bytes(content if graph.name != wrong else content.replace(b"Tanh", b"Sign"))
            digest = bundle.manifest.files[graph.file].sha256
            key = ("onnxruntime", edgeseg_device(), graph.name, "fp32", graph.canvas)
            edit.add_engine(EngineSpec(*key, file, (), digest))
    return bundle


def edgeseg_device() -> str:
    from edgeseg.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend().probe().device or ""


@pytest.mark.onnx
def test_ungated_engines_are_gated_at_first_open_and_remembered(tmp_path):
    bundle = ungated_bundle(tmp_path / "a.bundle")
    edgeseg.open(bundle.path).close()
    gates = [engine.gate for engine in edgeseg.Bundle.open(bundle.path).manifest.engines]
    assert len(gates) == 10
    assert all(gate is not None and gate.passed and gate.cosine > 0.9999 for gate in gates)


@pytest.mark.onnx
def test_engine_that_fails_its_gate_is_refused_and_named(tmp_path):
    bundle = ungated_bundle(tmp_path / "a.bundle", wrong="sam")
    with pytest.raises(GateError, match=r"sam_2 of sam at 64x64: cosine .*edgeseg build .* --backend onnxruntime"):
        edgeseg.open(bundle.path)
    failed = [e.graph for e in edgeseg.Bundle.open(bundle.path).manifest.engines if e.gate and not e.gate.passed]
    assert failed.count("sam") == 2


@pytest.mark.onnx
def test_text_engine_that_fails_its_gate_is_refused(tmp_path, monkeypatch):
    bundle = ungated_bundle(tmp_path / "a.bundle")
    monkeypatch.setattr("edgeseg.segmenter.reference.check_text", wrong_text)
    with pytest.raises(GateError, match=r"text_embedding of text at any: cosine 0\.5"):
        edgeseg.open(bundle.path)
    assert [e.graph for e in edgeseg.Bundle.open(bundle.path).manifest.engines if e.gate and not e.gate.passed] == [
        "text"
    ]


def wrong_text(bundle, graph, session):
    check = TensorCheck("any", 0, graph.name, "text_embedding", 0.5, 1.0)
    return Report(Limits(0.999, 0.99), (check,), ())


def test_network_sees_the_resized_image_and_zeros_beside_it(fake_bundle):
    seen = []

    def sam(feed):
        seen.append(feed["image_sam"])
        return {f"sam_{block}": np.zeros((1, 24, 12), np.float32) for block in (2, 5, 8, 11)}

    with edgeseg.open(fake_bundle.path, backend=FakeBackend({"sam": sam})) as segmenter:
        placement = segmenter(RGB, vocabulary()).masks.placement
        rgb = resize_rgb(RGB, placement.valid)
        transform = segmenter.bundle.manifest.images["image_sam"]
    assert placement.valid == (53, 96)
    assert np.array_equal(seen[0], preprocess(rgb, (53, 96), transform, (64, 96)))


@pytest.mark.onnx
def test_references_can_be_added_again(tiny, tmp_path):
    bundle = make_bundle(tmp_path / "b.bundle", ((64, 64),))
    add_references(bundle)
    assert bundle.manifest.reference["64x64"] == ("reference/64x64-0.npz",)


def test_image_can_go_in_as_it_is_on_a_chosen_canvas(fake):
    masks = fake.masks(RGB, vocabulary(), resize="none")
    assert (masks.placement.valid, masks.placement.canvas) == ((50, 90), (64, 96))
    assert fake.masks(RGB, vocabulary(), canvas=(64, 64)).placement.canvas == (64, 64)
    with pytest.raises(InputError, match="there is none among 64x64, 64x96"):
        fake.masks(RGB, vocabulary(), canvas=(32, 32))
