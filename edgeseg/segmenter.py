"""The segmenter: a bundle opened on this machine's best engines; image and class list in, label map out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from edgeseg import reference
from edgeseg.backends.base import Backend
from edgeseg.bundle import Bundle
from edgeseg.chain import Observer
from edgeseg.chains import Chains
from edgeseg.errors import EdgesegError, InputError, StorageError
from edgeseg.images import ImageOptions, LoadedImage, load
from edgeseg.pipelines import get_pipeline
from edgeseg.pipelines.base import Look, Maker
from edgeseg.placement import Placement, place
from edgeseg.preprocess import resize_rgb
from edgeseg.schema import EngineSpec, Size, size_text
from edgeseg.segmentation import Evidence, Segmentation
from edgeseg.selection import Plan, Request, build_command, choose
from edgeseg.vocabulary import ClassList, Vocabulary
from edgeseg.vocabulary.maker import Progress

if TYPE_CHECKING:
    from edgeseg.segments.finder import Wish
    from edgeseg.segments.segments import Segments

Classes = Vocabulary | ClassList | Iterable[str] | str


def open(
    path: str | Path,
    backend: str | Backend | None = None,
    precision: str | None = None,
    *,
    device: int = 0,
    threads: int | None = None,
) -> Segmenter:
    """Open a bundle; `edgeseg.open` is this function.

    Args:
        path: the bundle's folder.
        backend: "onnxruntime", "tensorrt", "tensorrt_rtx"; None takes the best one that has engines for this machine.
        precision: "fp32", "fp16", ...; None takes the best one there is for the backend.
        device: index of the GPU.
        threads: CPU threads; None takes one per physical core.

    Raises:
        BundleError, BackendError: nothing in the bundle runs here; the message says what to build or install.
        GateError: an engine that ran here for the first time does not give the reference results.
    """
    bundle = Bundle.open(path)
    pipeline = get_pipeline(bundle.manifest)
    plan = choose(bundle, pipeline.graphs, Request(backend, precision, device, threads))
    segmenter = Segmenter(bundle, plan)
    try:
        segmenter.gate()
    except BaseException:
        segmenter.close()
        raise
    return segmenter


@dataclass
class _Timer:
    """Milliseconds of each step."""

    timings_ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.timings_ms[name] = (time.perf_counter() - start) * 1e3


class Segmenter:
    """A bundle's pipeline. A context manager; use one per thread.

        with edgeseg.open("ebseg-b.bundle") as segmenter:
            result = segmenter("photo.jpg", classes=["cat", "wooden table"])

    Args:
        bundle: an opened bundle.
        plan: what runs it.

    Attributes:
        bundle, plan: as given.
        observer: hears of the steps of every run of the graphs; None, as it is at first, costs nothing.
    """

    def __init__(self, bundle: Bundle, plan: Plan) -> None:
        self.bundle, self.plan = bundle, plan
        self.observer: Observer | None = None
        self._pipeline = get_pipeline(bundle.manifest)
        self._chains = Chains(bundle, plan, self._pipeline.graphs)
        self._maker: Maker | None = None
        self._vocabulary: tuple[object, Vocabulary] | None = None
        self._busy = threading.Lock()
        self._open = True

    def __call__(self, image: Any, classes: Classes, threshold: float | None = None, **options: Any) -> Segmentation:
        """Label every pixel.

        Args:
            image: path, PIL image, or (H, W, 3) uint8 RGB array.
            classes: names, or a `Vocabulary` made before.
            threshold: pixels whose best score is below it belong to none of the classes (label 65535).
            **options: `overlap`: name → whether the model was trained on it; `resize`: "none" leaves the image as large
                as it is; `canvas`: (H, W), the one to use; `top_k`: how many classes the expensive graphs see, for a
                family that can reject classes early; `settings`: name → value of what the family lets one choose (for
                PnP-OVSS see docs/pnp-ovss.md); `frame`, `bits16`, `max_pixels`: see `ImageOptions`.

        Raises:
            InputError: the image or the class list cannot be used.
        """
        with self._alone():
            loaded, masks, timer = self._masks(image, classes, options)
            with timer.step("compose"):
                composed = masks.compose(threshold)
        placement = masks.placement
        return Segmentation(
            composed.labels,
            masks.names,
            dict(zip(masks.names, map(int, composed.areas), strict=True)),
            placement.exact,
            placement.reason,
            loaded.rgb,
            masks,
            loaded.notes,
            timer.timings_ms,
            composed.best,
        )

    def masks(self, image: Any, classes: Classes, **options: Any) -> Evidence:
        """What the label map is made of: for EBSeg, the query masks (`Masks`). Arguments as for a call."""
        with self._alone():
            return self._masks(image, classes, options)[1]

    def vocabulary(
        self, classes: Classes, overlap: Mapping[str, bool] | None = None, progress: Progress | None = None
    ) -> Vocabulary:
        """Encode class names once, for many images; `progress` gets (encoded, to encode). Raises InputError."""
        if self._maker is None:
            self._maker = self._pipeline.vocabulary_maker(
                self.bundle, lambda graph, _path: self.plan.open_text(self.bundle, graph)
            )
        if isinstance(classes, Vocabulary):
            checked = self._maker.check(classes)
            return checked.with_overlap(overlap) if overlap else checked
        return self._maker.vocabulary(classes, overlap, progress)

    def segments(self, image: Any, wish: Wish | None = None, **options: Any) -> Segments:
        """Masks of everything in a photo, with embeddings where the family has them; for bundles with a SAM.

        Args:
            image: as for a call.
            wish: whose masks, and how they are made.
            **options: `frame`, `bits16`, `max_pixels`: see `ImageOptions`.

        Raises:
            InputError, BundleError: see `edgeseg.segments.finder`.
        """
        from edgeseg.segments.finder import Wish, find_segments

        with self._alone():
            loaded = load(image, ImageOptions(**options))
            chain = self._chains.chain(self.plan.canvases[0])
            return find_segments(chain, self.bundle.manifest, loaded.rgb, wish or Wish(), self.observer)

    def gate(self) -> None:
        """Check engines that have never run on this device against the reference tensors, and remember the result.

        Raises:
            GateError: one of them fails.
        """
        plan, ungated = self.plan, self.plan.ungated()
        if ungated:
            chain = self._chains.chain
            report = reference.check_chains(self.bundle, self._pipeline, chain, plan.canvases, *plan.all_precisions())
            self._settle(report, ungated)
        for graph, engine in plan.ungated_text(self.bundle):
            report = reference.check_text(self.bundle, graph, plan.open_text(self.bundle, graph))
            self._settle(report, [engine])

    def close(self) -> None:
        """Free the engines."""
        self._open = False
        self._chains.close()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._open:
            raise EdgesegError("segment an image", "the segmenter is closed", "open the bundle again")
        if not self._busy.acquire(blocking=False):
            raise EdgesegError("segment an image", "another thread is using this segmenter", "open one per thread")
        try:
            yield
        finally:
            self._busy.release()

    def _masks(self, image: Any, classes: Classes, options: dict[str, Any]) -> tuple[LoadedImage, Evidence, _Timer]:
        timer, overlap = _Timer(), options.pop("overlap", None)
        resize, canvas, top_k = (options.pop(name, None) for name in ("resize", "canvas", "top_k"))
        settings = options.pop("settings", None) or {}
        with timer.step("read"):
            loaded = load(image, ImageOptions(**options))
        with timer.step("vocabulary"):
            vocabulary = self._known(classes, overlap)
        with timer.step("preprocess"):
            placement = self._place(loaded, resize, canvas)
            rgb = resize_rgb(loaded.rgb, placement.valid)
            feed = self._pipeline.image_feed(rgb, placement.valid, placement.canvas)
        with timer.step("load"):
            chain = self._chains.chain(placement.canvas)
        with timer.step("chain"):
            look = Look(vocabulary, placement, loaded.rgb, top_k, settings, self.observer)
            seen = self._pipeline.look(chain, feed, look)
        timer.timings_ms |= {f"chain.{name}": value for name, value in seen.timings_ms.items()}
        return loaded, seen.evidence, timer

    def _place(self, loaded: LoadedImage, resize: str | None, canvas: Size | None) -> Placement:
        height, width = loaded.rgb.shape[:2]
        canvases = self.plan.canvases if canvas is None else (canvas,)
        if canvas not in (None, *self.plan.canvases):
            sizes = ", ".join(map(size_text, self.plan.canvases))
            found = f"there is none among {sizes}"
            raise InputError(f"use the canvas {size_text(canvas)}", found, "take one of these, or build its engines")
        return place((height, width), canvases, self.bundle.manifest.recipe, resize=resize)

    def _known(self, classes: Classes, overlap: Mapping[str, bool] | None) -> Vocabulary:
        """The vocabulary; that of the call before if the names are the same."""
        if isinstance(classes, (Vocabulary, ClassList, str)):
            key: object = (classes, repr(overlap))  # a Vocabulary equals only itself
        else:
            classes = list(classes)
            key = (tuple(classes), repr(overlap))
        if self._vocabulary is None or self._vocabulary[0] != key:
            self._vocabulary = (key, self.vocabulary(classes, overlap))
        return self._vocabulary[1]

    def _settle(self, report: reference.Report, engines: list[EngineSpec]) -> None:
        """Remember what the engines made of the reference, and refuse them if it was not enough."""
        self._remember([replace(engine, gate=report.gate(engine.graph, engine.canvas)) for engine in engines])
        todo = build_command(self.bundle.path, self.plan.backend.name, engines[0].precision)
        report.require(f"use the {engines[0].precision} engines of {self.bundle.path}", todo)

    def _remember(self, engines: list[EngineSpec]) -> None:
        """Write gate results into the bundle; one that cannot be written is checked again when it is opened next."""
        try:
            with self.bundle.edit() as edit:
                for engine in engines:
                    edit.add_engine(engine)
        except StorageError as error:
            self.plan = replace(self.plan, notes=(*self.plan.notes, f"gate results were not kept: {error.found}"))
