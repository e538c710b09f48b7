"""Images through a bundle: streamed, resumable, and through the runtime's own preprocessing."""

import logging
import shutil
import threading
import tracemalloc
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from edgeseg.bundle import Bundle
from edgeseg.calibration import calibrate as module
from edgeseg.calibration.calibrate import calibrate, quantized_graphs
from edgeseg.calibration.photos import photos_at
from edgeseg.calibration.tap import TappedChain
from edgeseg.errors import BuildError, StorageError
from edgeseg.pipelines import get_pipeline
from tests.calibration.photo_bundle import make, write_photos
from tests.nets import Net

pytestmark = pytest.mark.onnx


def quiet(_done, _total):
    pass


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return make(tmp_path_factory.mktemp("calibrate") / "toy.bundle")


@pytest.fixture
def bundle(original, tmp_path):
    return Bundle.open(shutil.copytree(original.path, tmp_path / "toy.bundle"))


def photos(bundle, tmp_path, count=6, sizes=((32, 32), (32, 48))):
    for size in sizes:
        write_photos(tmp_path / "in", count // len(sizes), size)
    return photos_at(tmp_path / "in", bundle, 99, 0, quiet)


def state_folder(bundle):
    return bundle.path.with_name(f".{bundle.path.name}.calibration")


def test_every_site_of_the_encoders_and_the_tail_gets_a_range(bundle, tmp_path):
    ranges = calibrate(bundle, photos(bundle, tmp_path), quiet)
    assert set(ranges.graphs) == {"sam", "clip_trunk", "clip_tail"}
    assert len(ranges.graphs["sam"].sites) == 2
    assert all(found.limit > 0 for graph in ranges.graphs.values() for found in graph.sites.values())
    assert all(peak > 0 for graph in ranges.graphs.values() for peak in graph.peaks.values())
    assert ranges.images.count == 6
    assert not state_folder(bundle).exists()


def test_networks_see_what_the_runtime_would_give_them(bundle, tmp_path):
    found = photos(bundle, tmp_path, 1, ((20, 32),))
    pixels = found.items[0].rgb()
    expected = get_pipeline(bundle.manifest).image_feed(pixels, (20, 32), (32, 32))
    seen = {}
    chain = TappedChain(bundle, (32, 32), {"sam"}, tmp_path)
    inner = chain._chain.run
    chain._chain.run = lambda feed, wanted: seen.update(feed) or inner(feed, wanted)
    chain.run(found.items[0], lambda *_: None)
    assert all(np.array_equal(seen[name], array) for name, array in expected.items())


def test_largest_magnitude_is_the_one_that_flows_in_the_graph(bundle, tmp_path):
    found = photos(bundle, tmp_path, 3, ((32, 32),))
    ranges = calibrate(bundle, found, quiet).graphs["sam"]
    seen = []
    chain = TappedChain(bundle, (32, 32), {"sam"}, tmp_path)
    for photo in found.items:
        chain.run(photo, lambda _graph, values: seen.append(values))
    for name, peak in ranges.peaks.items():
        assert peak == pytest.approx(max(float(values[name]) for values in seen), rel=1e-5)
    for name, site in ranges.sites.items():
        if name not in ranges.smoothing:
            assert site.largest == pytest.approx(max(np.abs(values[name]).max() for values in seen), rel=1e-5)


@pytest.mark.parametrize("stop", [0, 1, 5, 7, 9])
def test_an_interrupted_calibration_goes_on_and_gives_the_same(bundle, tmp_path, monkeypatch, stop):
    found = photos(bundle, tmp_path)
    expected = calibrate(bundle, found, quiet)
    monkeypatch.setattr(module, "SAVE_S", 0.0)

    def press(done, _total):
        if done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(bundle, found, press)
    left = {path.name for path in state_folder(bundle).iterdir()}
    assert left <= {".lock", "state.npz"}
    steps = []
    assert calibrate(bundle, found, lambda *counts: steps.append(counts)) == expected
    assert not state_folder(bundle).exists()
    pilot = 6
    assert steps[0][0] == max(stop, pilot) if "state.npz" in left else steps[0][0] == 0


def test_progress_of_other_images_or_a_damaged_one_is_not_used(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SAVE_S", 0.0)
    found = photos(bundle, tmp_path)
    fewer = photos_at(tmp_path / "in", bundle, 3, 0, quiet)
    expected, of_fewer = calibrate(bundle, found, quiet), calibrate(bundle, fewer, quiet)
    state = state_folder(bundle)
    for content in (b"", b"PK\3\4 nonsense"):
        state.mkdir()
        (state / "state.npz").write_bytes(content)
        assert calibrate(bundle, found, quiet) == expected

    def press(done, _total):
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(bundle, found, press)
    assert (state / "state.npz").is_file()
    assert calibrate(bundle, fewer, quiet) == of_fewer


def test_memory_does_not_grow_with_the_number_of_images(bundle, tmp_path):
    def peak(count):
        found = photos(bundle, tmp_path / str(count), count, ((32, 32),))
        tracemalloc.start()
        calibrate(bundle, found, quiet)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(8)
    assert peak(40) < 1.05 * peak(8) + (1 << 16)


def test_full_disk_is_said_and_the_bundle_stays(bundle, tmp_path, monkeypatch):
    found = photos(bundle, tmp_path)
    monkeypatch.setattr(module, "SAVE_S", 0.0)

    def full(*_args, **_arrays):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgeseg.calibration.progress.np.savez_compressed", full)
    with pytest.raises(StorageError, match="the disk is full"):
        calibrate(bundle, found, quiet)
    Bundle.open(bundle.path).verify()


def replaced(bundle, name, change):
    """The bundle with one graph's nodes changed, at every canvas."""
    with bundle.edit() as edit:
        for graph in [graph for graph in bundle.manifest.graphs if graph.name == name]:
            model = onnx.load(bundle.graph_files(graph), load_external_data=False)
            change(model)
            edit.stage(graph.file).write_bytes(model.SerializeToString())
    return Bundle.open(bundle.path)


def test_second_that_waits_gets_a_folder_of_its_own_when_the_first_is_done(tmp_path):
    bundle, inside, waits = SimpleNamespace(path=tmp_path / "a.bundle"), threading.Event(), threading.Event()

    def first():
        with module.workplace(bundle, "calibration", "calibrate"):
            inside.set()
            waits.wait(60)

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait(60)

    class Handler(logging.Handler):
        def emit(self, record):
            waits.set()

    handler = Handler()
    logging.getLogger("edgeseg").addHandler(handler)
    try:
        with module.workplace(bundle, "calibration", "calibrate") as folder:
            thread.join()
            assert folder.is_dir()
    finally:
        logging.getLogger("edgeseg").removeHandler(handler)
    assert not folder.exists()


def test_nan_in_a_graph_names_the_graph_and_the_tensor(bundle, tmp_path):
    def poison(model):
        node = next(node for node in model.graph.node if node.op_type == "Softmax")
        node.op_type = "Log"
        del node.attribute[:]

    broken = replaced(bundle, "clip_trunk", poison)
    with pytest.raises(BuildError, match=r"calibrate the graph clip_trunk: its tensor '.*' holds NaN"):
        calibrate(broken, photos(bundle, tmp_path), quiet)


def test_bundle_without_layers_is_refused(bundle):
    def empty(model):
        net = Net()
        y = net.op("MatMul", "x", net.weight(4, 4))
        toy = net.model({"x": [4, 4]}, {"y": [4, 4]}, {"y": y})
        del model.graph.node[:], model.graph.initializer[:], model.graph.output[:]
        model.graph.node.extend(toy.graph.node)
        model.graph.initializer.extend(toy.graph.initializer)
        model.graph.output.extend(toy.graph.output)

    for name in ("sam", "clip_trunk", "clip_tail"):
        bundle = replaced(bundle, name, empty)
    with pytest.raises(BuildError, match="give the graph of a vision transformer"):
        quantized_graphs(bundle)


def test_canvases_whose_networks_differ_are_refused(bundle, tmp_path):
    def rename(model):
        if model.graph.input[0].type.tensor_type.shape.dim[3].dim_value == 48:
            for node in model.graph.node:
                node.name = f"/other{node.name}"

    broken = replaced(bundle, "sam", rename)
    with pytest.raises(BuildError, match=r"calibrate the graph sam: it has no /.* at another canvas"):
        calibrate(broken, photos(bundle, tmp_path), quiet)
