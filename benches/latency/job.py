"""All measurements of one command line: the image, the sweeps, and the result as plain JSON."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from edgeseg.errors import BundleError
from edgeseg.schema import Size, size_text
from edgeseg.vocabulary import Vocabulary

from ..identity import shown_path
from .effort import TOTALS, Effort, Report
from .graphs import batched, check_batches, graph_runs
from .image import ImageRuns
from .measure import measure, stage
from .subject import Subject

Bar = Callable[[str], AbstractContextManager[Report]]


@dataclass(frozen=True)
class Job:
    """What to measure.

    Attributes:
        image: a file; None takes the bundle's reference image of the canvas.
        canvas: (H, W); None takes the smallest that holds the image, or the first where no image is given.
        batches: numbers of images at once, measured through the graphs alone.
        effort: see `Effort`.
        in_order: the subject was opened so.
        settings: of the family, see `Segmenter`.
    """

    image: Path | None = None
    canvas: Size | None = None
    batches: tuple[int, ...] = ()
    effort: Effort = field(default_factory=Effort)
    in_order: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)


def measure_all(subject: Subject, job: Job, vocabularies: Sequence[Vocabulary], bar: Bar) -> dict[str, Any]:
    """Measure the image with each vocabulary, and the graphs with each batch and the last vocabulary.

    Args:
        subject: the opened bundle.
        job: see `Job`.
        vocabularies: at least one.
        bar: given a title, a progress bar.

    Raises:
        InputError: the image cannot be used, or a graph does not take such a batch.
        BundleError: no image is given and the bundle holds none.
    """
    _check(subject, job)
    rows = []
    with tempfile.TemporaryDirectory(prefix="edgeseg-") as folder:
        image = job.image or reference_file(subject, job.canvas, Path(folder))
        for vocabulary in vocabularies:
            with bar(f"{len(vocabulary.names)} classes") as report:
                runs = ImageRuns(subject.segmenter, image, vocabulary, Path(folder), _options(job))
                rows.append(_image_row(runs, subject, job, report))
        for batch in job.batches:
            with bar(f"{batch} images at once") as report:
                rows.append(_batch_row((image, vocabularies[-1], batch), subject, job, report))
    said = {"settings": dict(job.settings)} if job.settings else {}
    return {"image": _describe_image(runs, job), "in_order": job.in_order, **said, "measurements": rows}


def reference_file(subject: Subject, canvas: Size | None, folder: Path) -> Path:
    """The bundle's first reference image of a canvas (by default of the first) as a PNG. Raises BundleError."""
    bundle, key = subject.segmenter.bundle, size_text(canvas or subject.plan.canvases[0])
    if not bundle.manifest.reference.get(key):
        raise BundleError("measure without an image", f"the bundle holds none for {key}", "give --image PATH")
    path = folder / f"reference-{key}.png"
    Image.fromarray(bundle.reference(key)[0]["image"]).save(path)
    return path


def _check(subject: Subject, job: Job) -> None:
    """Before anything is measured, that each batch can be."""
    graphs = subject.graphs(job.canvas or subject.plan.canvases[0])
    check_batches(graphs, subject.segmenter.bundle.manifest.images, job.batches)


def _options(job: Job) -> dict[str, Any]:
    return {"settings": job.settings} | ({} if job.canvas is None else {"canvas": job.canvas})


def _image_row(runs: ImageRuns, subject: Subject, job: Job, report: Report) -> dict[str, Any]:
    found = measure(runs.once, job.effort, subject.place, report)
    rows = [
        stage(
            name,
            samples,
            runs.clock(name),
            runs.included(name, on_gpu=subject.place.on_gpu, in_order=job.in_order),
            runs.part_of(name),
        )
        for name, samples in found.samples_ms.items()
    ]
    return {"classes": len(runs.vocabulary.names), "batch": 1, **_split(rows), **found.describe()}


def _batch_row(what: tuple[Path, Vocabulary, int], subject: Subject, job: Job, report: Report) -> dict[str, Any]:
    image, vocabulary, batch = what
    with graph_runs(subject.segmenter, image, vocabulary, job.canvas) as runs:
        runs.feed = batched(runs.feed, subject.segmenter.bundle.manifest.images, batch)
        found = measure(runs.once, job.effort, subject.place, report)
        rows = [
            stage(name, samples, runs.clock(name), runs.included(name), runs.part_of(name))
            for name, samples in found.samples_ms.items()
        ]
    return {"classes": len(vocabulary.names), "batch": batch, **_split(rows), **found.describe()}


def _split(rows: list[dict[str, Any]]) -> dict[str, Any]:
    totals = [row for row in rows if row["name"] in TOTALS]
    return {"totals": totals, "stages": [row for row in rows if row["name"] not in TOTALS]}


def _describe_image(runs: ImageRuns, job: Job) -> dict[str, Any]:
    assert runs.last is not None
    placement = runs.last.masks.placement
    return {
        "path": None if job.image is None else shown_path(job.image),
        "size": size_text(placement.original),
        "resized": size_text(placement.valid),
        "canvas": size_text(placement.canvas),
        "exact": placement.exact,
    }
