"""Label maps beside their photos: runs a few images of an accuracy result once more, with the same engines.

The result holds counts, not pixels, so this needs the bundle and the data set where the result says they are. That the
engines are the same is checked by their digest, and that they still do the same by the worst image's score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import edgeseg
from edgeseg.cli.class_lists import read_class_lists
from edgeseg.errors import EdgesegError, InputError
from edgeseg.schema import parse_size
from edgeseg.segmenter import Segmenter

from ..accuracy.job import Job, Options, Worker, side
from ..datasets import Dataset, open_dataset
from ..identity import engines_sha256
from .draw import Entry, Picture, draw
from .html import Html, join, tag, void
from .parts import remarks
from .result import Result

MOST = 12
"""Images of a result; they are by far the largest part of the page."""

_SAID = (
    "Numbers in the pictures are those of the classes below them; behind a name are its shares of the labelled and of "
    "the predicted pixels. Errors are striped; what is not scored is dark."
)
_TOLERANCE_PERCENT = 1e-9
_TODO = "make the report without --overlays, or score again"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Overlays:
    """What could be shown.

    Attributes:
        pictures: of all results.
        missing: for each result that could not be run again, why.
    """

    pictures: tuple[Picture, ...] = ()
    missing: tuple[str, ...] = ()


def overlays_of(results: Sequence[Result], count: int, progress: Progress) -> Overlays:
    """`run_again` of each result. Raises what the first one raised, if none can be run again."""
    pictures, errors = list[Picture](), dict[int, EdgesegError]()
    for result in results:
        try:
            pictures += run_again(result, count, progress)
        except EdgesegError as error:
            errors[result.number] = error
    if errors and not pictures:
        raise next(iter(errors.values()))
    return Overlays(tuple(pictures), tuple(f"no label maps of [{number}]: {error}" for number, error in errors.items()))


def run_again(result: Result, count: int, progress: Progress) -> list[Picture]:
    """Pictures of the worst image and of others, evenly spaced over the data set.

    Args:
        result: of an accuracy.
        count: how many images.
        progress: gets (done, of).

    Raises:
        EdgesegError: bundle or data set are not where the result says, no longer the same, or do not run here.
    """
    body = result.body
    dataset = _dataset(result)
    with edgeseg.open(Path(body["bundle"]), backend=body["backend"], precision=body["precision"]) as segmenter:
        if engines_sha256(segmenter) != body["engines_sha256"]:
            found = f"the engines in {body['bundle']} are no longer those that were scored"
            raise InputError(f"run images of {result.file} again", found, _TODO)
        worker = Worker(_job(segmenter, dataset, body), [segmenter])
        indices = chosen(dataset, body["worst_image"], count)
        pictures = []
        for done, index in enumerate(indices, 1):
            pictures.append(_picture(worker, index, result))
            progress(done, len(indices))
    return pictures


def chosen(dataset: Dataset, worst: dict[str, Any] | None, count: int) -> list[int]:
    """The worst image's index, then others from the first to the last."""
    keys = [item.key for item in dataset.items]
    first = [keys.index(worst["key"])] if worst and worst["key"] in keys else []
    rest = [index for index in range(len(keys)) if index not in first]
    wanted = min(count - len(first), len(rest))
    places = np.linspace(0, len(rest) - 1, wanted).round().astype(int).tolist() if wanted > 0 else []
    return [*first, *(rest[place] for place in places)]


def overlay_section(found: Overlays) -> Html | None:
    """None without pictures."""
    if not found.pictures:
        return None
    missing = remarks(found.missing, "doubt")
    return tag(
        "section", tag("h2", "Label maps"), tag("p", _SAID, class_="quiet"), *map(_figure, found.pictures), missing
    )


def _dataset(result: Result) -> Dataset:
    said = result.body["dataset"]
    found = open_dataset(said["name"], Path(said["root"]), said["split"], said["layout"])
    if len(found) < said["images"]:
        problem = f"{said['images']} images were scored and {said['root']} holds {len(found)}"
        raise InputError(f"run images of {result.file} again", problem, _TODO)
    return found.first(said["images"])


def _job(segmenter: Segmenter, dataset: Dataset, body: dict[str, Any]) -> Job:
    """As it was scored: the same prompts, and the same of them treated as seen in training."""
    pairs = zip(body["prompts"], dataset.scoring.prompt_classes, strict=False)
    seen = {prompt: body["classes"][index]["seen"] for prompt, index in pairs if index < len(body["classes"])}
    overlap = {prompt: flag for prompt, flag in seen.items() if flag is not None}
    same = tuple(body["prompts"]) == dataset.prompts.names
    vocabulary = segmenter.vocabulary(dataset.prompts if same else body["prompts"], overlap)
    resize = "none" if (body["resize"] or {}).get("mode") == "none" else None
    canvas = parse_size(body["canvas"]) if body["canvas"] else None
    lists = read_class_lists(Path(body["class_lists"]) if "class_lists" in body else None)
    options = Options(body["threshold"], resize, canvas, body.get("settings", {}), lists, top_k=body.get("top_k"))
    return Job(dataset, (side(segmenter, vocabulary),), options, None)


def _picture(worker: Worker, index: int, result: Result) -> Picture:
    sample, predicted = worker.predict(index)
    scored = sample.labels >= 0
    right = 100 * float((sample.labels == predicted)[scored].mean()) if scored.any() else float("nan")
    worst = result.body["worst_image"]
    then = ""
    if worst and worst["key"] == sample.key:
        same = abs(worst["correct_percent"] - right) <= _TOLERANCE_PERCENT
        then = ", the lowest share" if same else f" now; {worst['correct_percent']:.2f} % when it was scored"
    title = f"[{result.number}] {result.name}: {sample.key}, {right:.2f} % of its pixels right{then}"
    return draw(title, sample.rgb, sample.labels, predicted, worker.job.dataset.classes.names)


def _figure(picture: Picture) -> Html:
    panels = [
        tag("figure", void("img", src=Html(uri), alt=name), tag("figcaption", name), class_="panel")
        for name, uri in picture.panels
    ]
    legend = tag("ul", *map(_entry, picture.entries), class_="legend classes")
    shown = tag("div", *panels, class_="panels")
    return tag("figure", tag("figcaption", picture.title), shown, legend, class_="overlay")


def _entry(entry: Entry) -> Html:
    swatch = tag("span", class_="swatch", style=f"background: rgb{entry.rgb}")
    shares = tag("span", f"{100 * entry.labelled:.1f} / {100 * entry.predicted:.1f} %", class_="quiet")
    return tag("li", join([swatch, " ", tag("b", str(entry.label)), f" {entry.name} ", shares]))
