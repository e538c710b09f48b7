"""Runs engines over a data set and counts. Can be cut short at any moment and goes on later, if it is given a `State`.

The result depends on nothing but engines, data set and options: not on the number of processes, nor on interruptions.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing

import numpy as np

from edgeseg.backends.host import physical_cores
from edgeseg.errors import InputError
from edgeseg.segmenter import Segmenter
from edgeseg.vocabulary import Vocabulary

from ..datasets import Dataset
from .count import Count, Tally
from .job import Crew, Job, Options, Worker, require_named_backend, side
from .pool import in_processes
from .result import Accuracy, Agreement
from .state import State, belongs_to

Progress = Callable[[int, int], None]


def evaluate(
    segmenter: Segmenter,
    dataset: Dataset,
    vocabulary: Vocabulary | None = None,
    options: Options | None = None,
    *,
    processes: int = 1,
    threads: int | None = None,
    ray: str | None = None,
    state: State | None = None,
    progress: Progress | None = None,
    per_image: bool = False,
) -> Accuracy:
    """Count how a data set's pixels are labelled.

    Args:
        segmenter: an open one. With several processes its engines are opened once more in each, by their names.
        dataset: with labels.
        vocabulary: a prompt for each of `dataset.prompts`, in their order; None encodes these.
        options: how images go in.
        processes: how many count; with more than one, a script that calls this needs `if __name__ == "__main__"`.
        threads: CPU threads of each of several processes; None shares the cores out among them.
        ray: address of a Ray cluster, on each of whose machines so many processes count; None counts on this machine.
        state: where to go on from and what to keep up to date.
        progress: gets (images done, all images).
        per_image: keep each image's counts too; some hundred bytes each.

    Raises:
        InputError: an image, its labels, the vocabulary, the state or the cluster cannot be used.
        EdgesegError: a process that counts has died.
    """
    if not dataset.labelled:
        raise InputError(f"score {dataset.name}", "it has no labels", "compare two engines on it instead (--against)")
    vocabulary = vocabulary or segmenter.vocabulary(dataset.prompts)
    wanted = len(dataset.scoring.prompt_classes)
    if len(vocabulary.names) != wanted:
        found = f"the vocabulary has {len(vocabulary.names)} names and the data set asks for {wanted}"
        raise InputError(f"score {dataset.name}", found, "give a name for each of its classes, in its order")
    crew = Crew(processes, threads, ray)
    job = _job(dataset, [(segmenter, vocabulary)], options, crew)
    count, resumed = _count(job, [segmenter], crew, state, progress, per_image=per_image)
    scoring = dataset.scoring
    return Accuracy(scoring.classes.names, _seen(dataset, vocabulary), scoring.background, count, resumed=resumed)


def compare(
    segmenter: Segmenter,
    other: Segmenter,
    dataset: Dataset,
    vocabularies: tuple[Vocabulary, Vocabulary] | None = None,
    options: Options | None = None,
    *,
    processes: int = 1,
    threads: int | None = None,
    ray: str | None = None,
    state: State | None = None,
    progress: Progress | None = None,
) -> Agreement:
    """Count how far two engines agree on a data set's images; its labels are not used.

    The arguments are those of `evaluate`, but for `vocabularies`: each engine's, of the same names; None encodes the
    data set's prompts with each. Raises InputError as `evaluate` does, and for vocabularies of different classes.
    """
    mine, theirs = vocabularies or (segmenter.vocabulary(dataset.prompts), other.vocabulary(dataset.prompts))
    if mine.names != theirs.names:
        raise InputError("compare two engines", "their vocabularies name different classes", "give both the same")
    crew = Crew(processes, threads, ray)
    job = _job(dataset, [(segmenter, mine), (other, theirs)], options, crew)
    count, resumed = _count(job, [segmenter, other], crew, state, progress)
    return Agreement(mine.names, count, resumed)


def _job(
    dataset: Dataset,
    pairs: Sequence[tuple[Segmenter, Vocabulary]],
    options: Options | None,
    crew: Crew,
) -> Job:
    if crew.processes < 1:
        raise InputError("count the images", f"{crew.processes} processes were asked for", "give 1 or more")
    for one, _ in () if crew.alone else pairs:
        require_named_backend(one)
    sides = tuple(side(one, names) for one, names in pairs)
    return Job(dataset, sides, options or Options(), crew.threads or max(physical_cores() // crew.processes, 1))


def _count(
    job: Job,
    segmenters: Sequence[Segmenter],
    crew: Crew,
    state: State | None,
    progress: Progress | None,
    *,
    per_image: bool = False,
) -> tuple[Count, int]:
    items, total = job.dataset.items, len(job.dataset)
    belongs = belongs_to(job, segmenters) if state else {}
    belongs |= {"each image's counts": "kept"} if per_image else {}
    count = Count(np.zeros(job.shape, np.int64), images=() if per_image else None)
    count = state.load(count, belongs, items) if state else count
    resumed, report = count.done, progress or (lambda done, total: None)
    report(resumed, total)
    try:
        with closing(_tallies(job, segmenters, range(resumed, total), crew)) as tallies:
            for tally in tallies:
                count = count.plus(tally)
                report(count.done, total)
                if state:
                    state.keep(count, belongs, items)
    finally:
        if state and count.done > resumed:
            state.save(count, belongs, items)
    return count, resumed


def _tallies(
    job: Job, segmenters: Sequence[Segmenter], indices: Sequence[int], crew: Crew
) -> Generator[Tally, None, None]:
    """Those of the images `indices`, in this order, counted by the crew."""
    if crew.alone:
        return _here(job, segmenters, indices)
    if crew.ray is None:
        return in_processes(job, indices, crew.processes)
    from .cluster import on_cluster  # ray is an extra

    return on_cluster(job, indices, crew, belongs_to(job, segmenters))


def _here(job: Job, segmenters: Sequence[Segmenter], indices: Sequence[int]) -> Generator[Tally, None, None]:
    with Worker(job, segmenters) as worker:
        yield from map(worker.tally, indices)


def _seen(dataset: Dataset, vocabulary: Vocabulary) -> tuple[bool | None, ...]:
    """Whether the model was trained on a class, that is on its prompt. The background is no such class."""
    scoring = dataset.scoring
    pairs = zip(scoring.prompt_classes, map(bool, vocabulary.overlap), strict=True)
    flags = {index: trained for index, trained in pairs if index != scoring.background}
    return tuple(flags.get(index) for index in range(len(scoring.classes.names)))
