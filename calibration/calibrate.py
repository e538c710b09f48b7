"""Images through a bundle's fp32 chain, and the ranges that come of it."""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from edgeseg.atomic import FileLock, storage_errors
from edgeseg.backends.base import Array
from edgeseg.bundle import Bundle
from edgeseg.errors import BuildError
from edgeseg.pipelines import get_pipeline
from edgeseg.schema import size_text

from .gather import PILOTS, Gatherer, weights_digest
from .photos import Photo, Photos, pilots
from .progress import load_progress, save_progress
from .ranges import SCHEMA, Ranges
from .sites import require_sites
from .tap import Sink, TappedChain, sites_of

NEVER = frozenset({"score", "rank", "text", "aggregate", "blip_itm_cam", "sam_decoder", "use_head"})
"""Graphs without layers to quantize: in `aggregate`, LMSeg's decoder, and in `sam_decoder` rounding moves masks; a
gradient, as in `blip_itm_cam`, is a difference of what is nearly equal; `use_head` waits for memory."""

SAVE_S = 20.0  # how much work an interruption may cost

Watch = Callable[[int, int], None]


def quantized_graphs(bundle: Bundle) -> set[str]:
    """Names of the graphs that have layers to quantize. Raises BuildError if there is none."""
    names = {name for name in get_pipeline(bundle.manifest).graphs if name not in NEVER}
    nets = sites_of(bundle, bundle.manifest.canvases[0], names)
    found = {name for name, (_, sites) in nets.items() if sites.layers}
    if not found and nets:
        require_sites(next(iter(nets.values()))[1], ", ".join(nets))
    if not found:
        asked = f"quantize {bundle.path}"
        raise BuildError(asked, "no graph of it works on images alone", "use the bundle that `edgeseg export` wrote")
    return found


def calibrate(bundle: Bundle, photos: Photos, watch: Watch, threads: int | None = None) -> Ranges:
    """Run the images and count.

    What is done so far is kept beside the bundle, in `.NAME.calibration`, until the ranges are complete; the same
    calibration of the same bundle goes on from there.

    Args:
        bundle: holds the fp32 graphs.
        photos: to run.
        watch: called with the number of runs done and of all.
        threads: CPU threads; None takes one per physical core.

    Raises:
        BuildError: there is nothing to quantize, or a tensor holds NaN. StorageError: the disk is full.
    """
    with workplace(bundle, "calibration", f"calibrate {bundle.path}") as folder:
        return _Calibration(bundle, photos, folder, threads).run(watch)


class _Calibration:
    def __init__(self, bundle: Bundle, photos: Photos, folder: Path, threads: int | None) -> None:
        self._bundle, self._photos, self._folder, self._threads = bundle, photos, folder, threads
        names = quantized_graphs(bundle)
        nets = sites_of(bundle, photos.items[0].placement.canvas, names)
        count = min(PILOTS, len(photos.items))
        self._gatherers = {name: Gatherer(net, sites, count) for name, (net, sites) in nets.items()}
        self._pilots = list(pilots(photos, count))
        digests = {name: weights_digest(net, sites) for name, (net, sites) in nets.items()}
        canvases = [size_text(photo.placement.canvas) for photo in photos.items]
        self._key = json.dumps([SCHEMA, photos.note.digest, canvases, digests])
        self._state = folder / "state.npz"

    def run(self, watch: Watch) -> Ranges:
        """Go on from what is on the disk, to the end."""
        total = len(self._pilots) + len(self._photos.items)
        done = self._resumed()
        if done is None:
            watch(0, total)
            for count, _ in enumerate(self._runs(self._pilots, self._pilot), start=1):
                watch(count, total)
            for gatherer in self._gatherers.values():
                gatherer.settle()
            done = 0
        self._count(done, lambda count: watch(len(self._pilots) + count, total))
        graphs = {name: gatherer.ranges() for name, gatherer in self._gatherers.items()}
        return Ranges(SCHEMA, self._photos.note, graphs)

    def _resumed(self) -> int | None:
        kept = load_progress(self._state, self._key)
        if kept is None:
            return None
        for name, counted in kept[1].items():
            self._gatherers[name].resume(counted)
        return kept[0]

    def _count(self, done: int, report: Callable[[int], None]) -> None:
        """Count the images from number `done` on. What is kept on the disk is always whole images."""
        saved = time.monotonic()
        report(done)
        for count, _ in enumerate(self._runs(self._photos.items[done:], self._add), start=done + 1):
            if time.monotonic() - saved > SAVE_S:
                counted = {name: gatherer.counted for name, gatherer in self._gatherers.items()}
                save_progress(self._state, self._key, count, counted)
                saved = time.monotonic()
            report(count)

    def _pilot(self, graph: str, values: Mapping[str, Array]) -> None:
        self._gatherers[graph].pilot(values)

    def _add(self, graph: str, values: Mapping[str, Array]) -> None:
        self._gatherers[graph].add(values)

    def _runs(self, photos: Sequence[Photo], sink: Sink) -> Iterator[Photo]:
        """Run the images, the networks of one canvas open at a time; yields each when it is done."""
        for canvas, group in itertools.groupby(photos, key=lambda photo: photo.placement.canvas):
            tapped = set(self._gatherers)
            with closing(TappedChain(self._bundle, canvas, tapped, self._folder, threads=self._threads)) as chain:
                for photo in group:
                    chain.run(photo, sink)
                    yield photo


@contextmanager
def workplace(bundle: Bundle, purpose: str, asked: str) -> Iterator[Path]:
    """A locked folder beside the bundle; it stays after an error, with what is done so far, and goes after success."""
    folder = bundle.path.with_name(f".{bundle.path.name}.{purpose}")
    with storage_errors(asked), _locked(folder, asked), _scratch(folder):
        yield folder
        shutil.rmtree(folder)


@contextmanager
def _locked(folder: Path, asked: str) -> Iterator[None]:
    """The folder, made and locked; whoever held it before has removed it if all was done."""
    with ExitStack() as stack:
        lock = None
        while lock is None:
            folder.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):
                lock = stack.enter_context(FileLock(folder / ".lock", asked))
        yield


@contextmanager
def _scratch(folder: Path) -> Iterator[None]:
    def clean() -> None:
        for path in folder.iterdir():
            if path.suffix in (".onnx", ".bin"):
                path.unlink()

    clean()  # a killed process may have left some
    try:
        yield
    finally:
        if folder.is_dir():
            clean()
