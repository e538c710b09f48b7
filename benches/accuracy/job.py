"""What is counted on each image: one engine against the labels or against another engine. Can go to another process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

import edgeseg
from edgeseg.backends import get_backend
from edgeseg.cli.class_lists import ClassLists
from edgeseg.compose import NONE_LABEL
from edgeseg.errors import InputError
from edgeseg.schema import Size
from edgeseg.segmenter import Segmenter
from edgeseg.vocabulary import Vocabulary

from ..datasets import Dataset, Item, Sample
from .count import Tally, tally

Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Options:
    """How an image becomes a label map.

    Attributes:
        threshold: pixels whose best score is below it are none of the classes; the background, where there is one.
        resize: "none" leaves images as large as they are; None follows the bundle's recipe.
        canvas: the (H, W) to use; None takes the smallest that fits.
        settings: of the family, see `Segmenter`.
        lists: the classes of each image, for a family that has the setting `only`; None gives all to each.
        top_k: so many classes are left by a family that rejects some early; None rejects none.
    """

    threshold: float | None = None
    resize: str | None = None
    canvas: Size | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    lists: ClassLists | None = None
    top_k: int | None = None

    def of(self, image: Path) -> dict[str, Any]:
        """What the segmenter is told for this image. Raises InputError where the lists do not name it."""
        only = {"only": self.lists.of(image)} if self.lists else {}
        told = {"resize": self.resize, "canvas": self.canvas, "top_k": self.top_k}
        return {**told, "settings": {**self.settings, **only}}


@dataclass(frozen=True)
class Crew:
    """Who counts.

    Attributes:
        processes: how many on this machine, or on each of the cluster's.
        threads: CPU threads of each process; None shares the cores out among those of a machine.
        ray: address of a Ray cluster whose machines count; None is this machine.
    """

    processes: int = 1
    threads: int | None = None
    ray: str | None = None

    @property
    def alone(self) -> bool:
        """The calling process counts itself, with the engines that are open."""
        return self.processes == 1 and self.ray is None


@dataclass(frozen=True, eq=False)
class Side:
    """One engine, as another process can open it.

    Attributes:
        bundle: its path.
        backend, precision, device: what runs it.
        vocabulary: its classes.
    """

    bundle: Path
    backend: str
    precision: str
    device: int
    vocabulary: Vocabulary

    def open(self, threads: int | None) -> Segmenter:
        """Raises what `edgeseg.open` raises."""
        options: dict[str, Any] = {"backend": self.backend, "precision": self.precision, "device": self.device}
        return edgeseg.open(self.bundle, **options, threads=threads)


def side(segmenter: Segmenter, vocabulary: Vocabulary) -> Side:
    """What an open segmenter is."""
    plan = segmenter.plan
    return Side(segmenter.bundle.path, plan.backend.name, plan.precision, plan.device, vocabulary)


def require_named_backend(segmenter: Segmenter) -> None:
    """Raises InputError if another process, which gets only the backend's name, would not open the same one."""
    backend = segmenter.plan.backend
    if type(backend) is not type(get_backend(backend.name)) or getattr(backend, "outputs", None):
        found = f"the backend {backend.name!r} is an object of your own"
        raise InputError("use several processes", found, "open the bundle with a backend's name, or use one process")


@dataclass(frozen=True, eq=False)
class Job:
    """See the module's text.

    Attributes:
        dataset: whose images.
        sides: one engine, whose labels are compared to the data set's; or two, which are compared to each other.
        options: for both.
        threads: of each process that opens the engines.
    """

    dataset: Dataset
    sides: tuple[Side, ...]
    options: Options
    threads: int | None

    @property
    def shape(self) -> tuple[int, int]:
        """Of the matrix; the last column, and between engines the last row, is "none of these"."""
        if len(self.sides) == 2:
            prompts = len(self.sides[0].vocabulary.names)
            return prompts + 1, prompts + 1
        classes = len(self.dataset.classes.names)
        return classes, classes + 1


class Worker:
    """Counts images of a job. A context manager that closes the engines it has opened itself.

    Args:
        job: what to count.
        segmenters: the sides' engines; None opens them.

    Attributes:
        job: as above.
        segmenters: one for each side.
    """

    def __init__(self, job: Job, segmenters: Sequence[Segmenter] | None = None) -> None:
        self.job = job
        self._stack = ExitStack()
        self.segmenters = list(segmenters) if segmenters is not None else self._open()
        self._classes = _prediction_table(job)

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def tally(self, index: int) -> Tally:
        """Read, segment and count one image. Raises InputError."""
        dataset, item = self.job.dataset, self.job.dataset.item(index)
        if len(self.job.sides) == 1:
            sample = dataset.load(index)
            found, exact = self._segment(0, sample.rgb, item)
            return tally(item.key, sample.labels, found, self.job.shape, exact)
        rgb = dataset.photo(index)
        (mine, exact), (theirs, also_exact) = (self._segment(number, rgb, item) for number in (0, 1))
        return tally(item.key, theirs, mine, self.job.shape, exact and also_exact)

    def predict(self, index: int) -> tuple[Sample, Int32]:
        """Read and segment one image, with one engine: the sample, and its classes as columns of the matrix."""
        sample = self.job.dataset.load(index)
        return sample, self._segment(0, sample.rgb, self.job.dataset.item(index))[0]

    def _open(self) -> list[Segmenter]:
        try:
            return [self._stack.enter_context(one.open(self.job.threads)) for one in self.job.sides]
        except BaseException:
            self._stack.close()
            raise

    def _segment(self, number: int, rgb: npt.NDArray[np.uint8], item: Item) -> tuple[Int32, bool]:
        """Columns of the matrix, and whether the image went in exactly; an error names the image's file."""
        options, vocabulary = self.job.options, self.job.sides[number].vocabulary
        told = options.of(item.image)
        try:
            result = self.segmenters[number](rgb, vocabulary, options.threshold, **told)
        except InputError as error:
            raise InputError(f"{error.asked} {item.image}", error.found, error.todo) from None
        columns: Int32 = self._classes[result.labels]
        return columns, result.exact


def _prediction_table(job: Job) -> Int32:
    """(65536,) int32: label of the segmenter → column of the matrix."""
    scoring, columns = job.dataset.scoring, job.shape[1]
    table = np.full(NONE_LABEL + 1, columns - 1, np.int32)
    if len(job.sides) == 2:
        table[: columns - 1] = np.arange(columns - 1)
        return table
    table[: len(scoring.prompt_classes)] = scoring.prompt_classes
    if scoring.background is not None:
        table[NONE_LABEL] = scoring.background
    return table
