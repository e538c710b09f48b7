"""`edgeseg run`: images in, label maps, overlays and JSON out."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

import edgeseg
from edgeseg.cli import printable
from edgeseg.cli.class_lists import ClassLists, read_class_lists
from edgeseg.cli.options import (
    classes_options,
    engine_options,
    parse_settings,
    resolve_classes,
    vocabulary_option,
)
from edgeseg.cli.terminal import print_json, progress_bar
from edgeseg.errors import InputError
from edgeseg.images import MAX_PIXELS, SUFFIXES
from edgeseg.outputs import OutputOptions, describe, unique_stems, write_outputs
from edgeseg.segmentation import Segmentation
from edgeseg.segmenter import Segmenter
from edgeseg.vocabulary import Vocabulary

_MAGIC = "*?["


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("inputs", nargs=-1, required=True, metavar="IMAGE|FOLDER|GLOB...")
@vocabulary_option
@classes_options
@click.option("-o", "--output", default="out", show_default=True, type=click.Path(path_type=Path), help="A folder.")
@click.option(
    "--resize",
    type=click.Choice(["recipe", "none"]),
    default="recipe",
    show_default=True,
    help="How images go in: by the bundle's own rule, or as large as they are.",
)
@click.option("--threshold", type=float, help="Pixels whose best score is below it belong to none of the classes.")
@click.option("--overlay/--no-overlay", default=True, show_default=True, help="Write the image under its colours.")
@click.option("--scores", is_flag=True, help="Write mask logits and class probabilities (.npz), which give all scores.")
@click.option("--top-k", type=int, help="Reject classes early, by a cheap pass: only this many reach the last graph.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of the bundle's family.")
@click.option("--class-lists", type=click.Path(path_type=Path), help="JSON: image name → its classes among all.")
@click.option("--frame", type=int, help="Which frame of animated images, or page of a TIFF, to take (from 0).")
@click.option("--16bit", "bits16", type=click.Choice(["scale"]), help="Divide 16-bit samples by 256.")
@click.option("--max-pixels", type=int, default=MAX_PIXELS, show_default=True, help="Largest image that is read.")
@engine_options
@click.option("--threads", type=int, help="CPU threads; default: one per physical core.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.pass_context
def run(ctx: click.Context, /, bundle: Path, inputs: tuple[str, ...], output: Path, **options: Any) -> None:
    """Segment images with the classes you name.

    An image that cannot be read is reported and the others are processed; the exit code is then that of the error.
    """
    taken = {name: options.pop(name) for name in ("classes", "file", "dataset", "vocabulary", "training", "new")}
    request = resolve_classes(**taken)
    images = find_images(inputs)
    where = {name: options.pop(name) for name in ("backend", "precision", "device", "threads")}
    write = OutputOptions(options.pop("overlay"), options.pop("scores"))
    as_json = options.pop("as_json")
    options["resize"] = None if options["resize"] == "recipe" else options["resize"]
    options["settings"] = parse_settings(options["settings"])
    lists = read_class_lists(options.pop("class_lists"))
    with edgeseg.open(bundle, **where) as segmenter:
        with progress_bar("encoding class names", shown=not as_json) as encoded:
            vocabulary = segmenter.vocabulary(request.source, request.overlap, encoded)
        job = _Job(segmenter, vocabulary, output, write, options, lists)
        with progress_bar("segmenting", shown=not as_json) as segmented:
            for number, (path, stem) in enumerate(zip(images, unique_stems(images), strict=True)):
                segmented(number, len(images))
                job.segment(path, stem)
        notes = segmenter.plan.notes
    _report(job, notes, as_json=as_json)
    ctx.exit(job.exit_code)


@dataclass
class _Job:
    """Segments one image after the other; an image that cannot be used does not stop it."""

    segmenter: Segmenter
    vocabulary: Vocabulary
    output: Path
    write: OutputOptions
    options: dict[str, Any]
    lists: ClassLists | None = None
    done: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int = 0

    def segment(self, path: Path, stem: str) -> None:
        try:
            result = self.segmenter(path, self.vocabulary, **self._options(path))
        except InputError as error:
            self.failed.append({"image": str(path), "error": str(error)})
            self.exit_code = error.exit_code
            click.echo(f"edgeseg: {printable(str(error))}", err=True)
            return
        files = [str(file) for file in write_outputs(result, self.output, stem, self.write)]
        self.done.append({"image": str(path), "files": files, **describe(result), "summary": _summary(result)})

    def _options(self, path: Path) -> dict[str, Any]:
        if self.lists is None:
            return self.options
        return self.options | {"settings": self.options["settings"] | {"only": self.lists.of(path)}}


def find_images(inputs: Sequence[str]) -> list[Path]:
    """The files that the arguments name, in their order and each once; folders and globs give images by name.

    Raises:
        InputError: a folder holds no image, or a glob matches nothing.
    """
    found: dict[Path, None] = {}
    for text in inputs:
        found |= dict.fromkeys(_matches(text))
    return list(found)


def _matches(text: str) -> list[Path]:
    path = Path(text)
    if path.is_dir():
        images = sorted(item for item in path.iterdir() if item.is_file() and item.suffix.lower() in SUFFIXES)
        if not images:
            found = f"no file in it ends in {', '.join(SUFFIXES)}"
            raise InputError(f"read images from {text}", found, "give another folder, or the files themselves")
        return images
    if any(sign in text for sign in _MAGIC) and not path.exists():
        images = sorted(item for item in map(Path, glob.glob(text, recursive=True)) if item.is_file())
        if not images:
            raise InputError(f"read images from {text}", "it matches no file", "check the pattern")
        return images
    # Not Path(text): that would turn rtsp://camera into rtsp:/camera, and the error should name what was given.
    return [path] if "://" not in text else [_address(text)]


def _address(text: str) -> Path:
    raise InputError(f"read the image {text}", "it is an address", "download it, or extract frames as images, first")


def _summary(result: Segmentation) -> str:
    """The largest classes in one line."""
    total = result.labels.size
    largest = sorted(result.areas.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{name} {pixels / total:.0%}" for name, pixels in largest if pixels) or "none of these"


def _report(job: _Job, notes: Sequence[str], *, as_json: bool) -> None:
    for note in notes:
        click.echo(f"edgeseg: note: {printable(note)}", err=True)
    if as_json:
        plan = job.segmenter.plan
        body = {"backend": plan.backend.name, "device": plan.device_key, "precision": plan.precision}
        images = [{key: value for key, value in item.items() if key != "summary"} for item in job.done]
        print_json("run", **body, notes=list(notes), images=images, failed=job.failed)
        return
    for item in job.done:
        remarks = [*item["notes"], *([item["reason"]] if item["reason"] else [])]
        click.echo(printable(f"{item['image']}: {item['summary']}" + "".join(f" ({remark})" for remark in remarks)))
    if job.done:
        click.echo(
            printable(f"{len(job.done)} of {len(job.done) + len(job.failed)} images segmented into {job.output}")
        )
