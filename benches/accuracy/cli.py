"""The verb `edgeseg bench accuracy`."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

import edgeseg
from edgeseg.cli.class_lists import read_class_lists
from edgeseg.cli.options import ClassRequest, engine_options, parse_settings, resolve_classes
from edgeseg.cli.terminal import Report, progress_bar
from edgeseg.errors import InputError
from edgeseg.segmenter import Segmenter
from edgeseg.vocabulary import Vocabulary

from ..datasets import DATASETS, Dataset, open_dataset
from ..output import PATH, check_places, finish, parse_canvas
from .count import Count
from .describe import (
    accuracy_lines,
    agreement_lines,
    describe_accuracy,
    describe_agreement,
    describe_engine,
    describe_images,
    describe_run,
    notes,
)
from .evaluate import compare, evaluate
from .job import Crew, Options
from .recall import Recall, describe_recall, measure_recall, parse_grids, recall_lines
from .result import Accuracy, Agreement
from .scores import CONVENTIONS
from .state import State

_AGAINST_KEYS = ("bundle", "backend", "precision")


@click.command()
@click.argument("bundle", type=PATH)
@click.option("--dataset", "name", required=True, metavar="NAME", help=f"One of {', '.join(DATASETS)}.")
@click.option("--root", required=True, type=PATH, help="The folder that holds the data set.")
@click.option("--split", metavar="NAME", help="Default: the one that is scored.")
@click.option("--layout", metavar="NAME", help="The form on disk; default: the first one that is there.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Use the first N images only.")
@click.option("--against", metavar="OTHER", help="Another bundle, or precision=NAME, backend=NAME: how far they agree.")
@click.option("--convention", type=click.Choice(list(CONVENTIONS)), default="detectron2", show_default=True)
@engine_options
@click.option("--threads", type=int, help="CPU threads of each process; default: all of them together take the cores.")
@click.option("--resize", type=click.Choice(["recipe", "none"]), default="recipe", show_default=True)
@click.option("--canvas", metavar="HxW", help="Default: the smallest that holds the image.")
@click.option("--threshold", type=float, help="Pixels whose best score is below it are none of the classes.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of the bundle's family.")
@click.option("--class-lists", type=PATH, help="JSON: image name → its classes among all.")
@click.option("--top-k", type=int, help="Reject classes early, as `edgeseg run` does: only this many are left.")
@click.option("--classes", metavar="NAMES", help="Prompts instead of the data set's: one for each class, in its order.")
@click.option("--file", type=PATH, help="The same, from a text file: one a line.")
@click.option("--vocabulary", type=PATH, help="The same, from a file that `edgeseg vocab` wrote.")
@click.option("--training", multiple=True, metavar="NAMES", help="Treat these classes as seen in training.")
@click.option("--new", multiple=True, metavar="NAMES", help="Treat these classes as not seen in training.")
@click.option("--processes", type=click.IntRange(1), default=1, show_default=True, help="How many count images.")
@click.option("--ray", metavar="ADDRESS", help="Count on a Ray cluster's machines: HOST:PORT of its head, or auto.")
@click.option("--mask-recall", metavar="N,N", help="Also how many labelled segments the masks of such grids find.")
@click.option("--per-image", is_flag=True, help="Keep each image's counts, for intervals of `bench compare`.")
@click.option("--state", type=PATH, help="File to go on from if this is cut short; default: OUTPUT.state.")
@click.option("-o", "--output", type=PATH, help="Write the result there, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.pass_context
def accuracy(ctx: click.Context, /, bundle: Path, output: Path | None, as_json: bool, **options: Any) -> None:
    """Score the engines of BUNDLE on a labelled data set, or compare them with other engines.

    Cut short, it goes on where it was when it is started again with the same -o or --state.
    """
    run = _Run.parse(options, shown=not as_json)
    state = _state(options["state"], output)
    check_places(output, state.path if state else None)
    start_s = time.monotonic()
    body, lines = _measure(run, bundle, options, state)
    body |= {"processes": run.crew.processes, "elapsed_s": round(time.monotonic() - start_s, 3)}
    finish(ctx, "bench accuracy", body, output, None if as_json else lines)
    if state:
        state.remove()


@dataclass(frozen=True)
class _Run:
    """The command line, checked."""

    dataset: Dataset
    whole: int
    options: Options
    classes: ClassRequest
    crew: Crew
    shown: bool
    per_image: bool
    grids: list[int]

    @classmethod
    def parse(cls, options: dict[str, Any], shown: bool) -> _Run:
        found = open_dataset(options["name"], options["root"], options["split"], options["layout"])
        resize = None if options["resize"] == "recipe" else options["resize"]
        settings, lists = parse_settings(options["settings"]), read_class_lists(options["class_lists"])
        canvas, top_k = parse_canvas(options["canvas"]), options["top_k"]
        how = Options(options["threshold"], resize, canvas, settings, lists, top_k=top_k)
        dataset = found.first(options["limit"]) if options["limit"] else found
        classes = _classes(options, found)
        kept = options["per_image"]
        if kept and options["against"]:
            todo = "leave one of the two out"
            raise InputError("use --per-image with --against", "it keeps counts of labels, which are not used", todo)
        crew = Crew(options["processes"], options["threads"], options["ray"])
        grids = parse_grids(options["mask_recall"])
        if grids and options["against"]:
            todo = "leave one of the two out"
            raise InputError("use --mask-recall with --against", "it compares masks with labels", todo)
        return cls(dataset, len(found), how, classes, crew, shown, kept, grids)

    def how(self, state: State | None, report: Report) -> dict[str, Any]:
        """The rest of what `evaluate` and `compare` are told."""
        return {**asdict(self.crew), "state": state, "progress": report}


def _measure(run: _Run, bundle: Path, options: dict[str, Any], state: State | None) -> tuple[dict[str, Any], list[str]]:
    where = {name: options[name] for name in ("backend", "precision", "device", "threads")}
    with ExitStack() as stack:
        segmenter = stack.enter_context(edgeseg.open(bundle, **where))
        body = describe_run(segmenter, run.dataset, run.options)
        if options["against"]:
            other = stack.enter_context(edgeseg.open(**{"path": bundle, **where, **_against(options["against"])}))
            agreed = _compare(run, segmenter, other, state)
            remarks = list(notes(run.dataset, run.whole, agreed.count, agreed.resumed))
            body |= {"against": describe_engine(other), **describe_agreement(agreed), "notes": remarks}
            return body, [*agreement_lines(agreed), *_notes(remarks)]
        masks = _recall(run, segmenter)
        if masks and segmenter.bundle.manifest.recipe.get("embedding") == 0:  # SAM by itself: no class has a score
            remarks = list(notes(run.dataset, run.whole, Count(np.zeros((0, 0), np.int64)), 0))
            return {**body, **describe_recall(masks), "notes": remarks}, [*recall_lines(masks), *_notes(remarks)]
        counted, vocabulary = _evaluate(run, segmenter, state)
    found = counted.under(options["convention"])
    remarks = list(notes(run.dataset, run.whole, found.count, found.resumed))
    lines = [*accuracy_lines(found), *recall_lines(masks), *_notes(remarks)]
    rest = {**describe_accuracy(found), **describe_images(found, run.dataset), "notes": remarks}
    rest |= describe_recall(masks) if masks else {}
    return {**body, "prompts": list(vocabulary.names), **rest}, lines


def _notes(remarks: list[str]) -> list[str]:
    return [f"note: {remark}" for remark in remarks]


def _recall(run: _Run, segmenter: Segmenter) -> list[Recall]:
    if not run.grids:
        return []
    with progress_bar("finding segments", shown=run.shown) as report:
        return measure_recall(segmenter, run.dataset, run.grids, report)


def _evaluate(run: _Run, segmenter: Segmenter, state: State | None) -> tuple[Accuracy, Vocabulary]:
    with progress_bar("encoding class names", shown=run.shown) as encoded:
        vocabulary = segmenter.vocabulary(run.classes.source, run.classes.overlap, encoded)
    with progress_bar("scoring images", shown=run.shown) as report:
        how = {**run.how(state, report), "per_image": run.per_image}
        return evaluate(segmenter, run.dataset, vocabulary, run.options, **how), vocabulary


def _compare(run: _Run, segmenter: Segmenter, other: Segmenter, state: State | None) -> Agreement:
    with progress_bar("encoding class names", shown=run.shown) as encoded:
        source, overlap = run.classes.source, run.classes.overlap
        mine, theirs = (one.vocabulary(source, overlap, encoded) for one in (segmenter, other))
    with progress_bar("comparing images", shown=run.shown) as report:
        return compare(segmenter, other, run.dataset, (mine, theirs), run.options, **run.how(state, report))


def _classes(options: dict[str, Any], dataset: Dataset) -> ClassRequest:
    """The prompts named on the command line, or else the data set's."""
    keys = ("classes", "file", "vocabulary", "training", "new")
    given = {key: options[key] for key in keys}
    if any(given[key] is not None for key in keys[:3]):
        return resolve_classes(**given)
    if not dataset.prompts.names:
        todo = 'give --classes "cat, dog", --file, or a classes.txt in its folder'
        raise InputError(f"know which classes to look for in {dataset.root}", "it names none", todo)
    return resolve_classes(dataset.prompts, training=given["training"], new=given["new"])


def _against(text: str) -> dict[str, Any]:
    """`precision=int8,backend=onnxruntime`, or a path, as arguments of `edgeseg.open`."""
    if "=" not in text or Path(text).exists():
        return {"path": Path(text), "backend": None, "precision": None}
    pairs = dict(part.strip().partition("=")[::2] for part in text.split(","))
    if not pairs.keys() <= set(_AGAINST_KEYS) or not all(pairs.values()):
        known = ", ".join(f"{key}=..." for key in _AGAINST_KEYS)
        raise InputError("use --against", f"it is {text!r}", f"give a bundle's path, or {known} between commas")
    path = {"path": Path(pairs.pop("bundle"))} if "bundle" in pairs else {}
    return {**path, **pairs}


def _state(path: Path | None, output: Path | None) -> State | None:
    chosen = path or (output and output.with_name(f"{output.name}.state"))
    return State(chosen) if chosen else None
