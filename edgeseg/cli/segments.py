"""`edgeseg segments`: everything in a photo as masks, with the embeddings by which `edgeseg query` finds them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

import edgeseg
from edgeseg.cli import printable
from edgeseg.cli.terminal import print_json, progress_bar, size_words
from edgeseg.errors import InputError
from edgeseg.images import MAX_PIXELS, ImageOptions, load
from edgeseg.segments.external import read_masks
from edgeseg.segments.finder import Wish
from edgeseg.segments.overlay import draw_segments, write_picture
from edgeseg.segments.prompted import Prompts


@click.command("segments")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("image", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The file to write (.npz).")
@click.option("--masks", type=click.Path(path_type=Path), help="Take these masks: a folder of PNGs, a .json, a .npz.")
@click.option("--point", multiple=True, metavar="X,Y", help="Ask for the object at this pixel; as often as you like.")
@click.option("--box", multiple=True, metavar="L,T,R,B", help="Ask for the object in this box; as often as you like.")
@click.option("--points-per-side", type=int, help="Points of the grid that is asked, on each side.  [default: 32]")
@click.option("--pred-iou-threshold", type=float, help="Least quality, by the model's own estimate.  [default: 0.88]")
@click.option("--stability-threshold", type=float, help="Least stability of a mask's edge.  [default: 0.95]")
@click.option("--box-nms-threshold", type=float, help="Most overlap of two masks' boxes.  [default: 0.7]")
@click.option("--crop-layers", type=int, help="Ask again in crops: 1 adds 4, 2 adds 16 more.  [default: 0]")
@click.option("--min-region-area", type=int, help="Fill holes and drop islands of fewer pixels.  [default: 0]")
@click.option("--overlay", type=click.Path(path_type=Path), help="Also draw the masks over the photo, a PNG.")
@click.option("--max-pixels", type=int, default=MAX_PIXELS, show_default=True, help="Largest image that is read.")
@click.option("--backend", metavar="NAME", help="Default: the best one that has engines for this machine.")
@click.option("--precision", metavar="NAME", help="Default: the best one there is for the backend.")
@click.option("--device", type=int, default=0, show_default=True, help="Index of the GPU.")
@click.option("--threads", type=int, help="CPU threads; default: one per physical core.")
@click.option("--json", "as_json", is_flag=True, help="Print the segments as JSON.")
def segments(bundle: Path, image: Path, *, output: Path, masks: Path | None, as_json: bool, **options: Any) -> None:
    """Find the segments of IMAGE with BUNDLE's SAM, or take them from --masks, and write them to a file.

    Without --point and --box that is everything in the photo. With a bundle of USE each segment gets an embedding in
    the space of class names.
    """
    where = {name: options.pop(name) for name in ("backend", "precision", "device", "threads")}
    drawn, max_pixels = options.pop("overlay"), options.pop("max_pixels")
    prompts = _prompts(options.pop("point"), options.pop("box"))
    _check(masks, prompts, options)
    loaded = load(image, ImageOptions(max_pixels=max_pixels))
    runs = None if masks is None else read_masks(masks, (loaded.rgb.shape[0], loaded.rgb.shape[1]))
    with edgeseg.open(bundle, **where) as segmenter, progress_bar("finding segments", shown=not as_json) as report:
        found = segmenter.segments(loaded.rgb, Wish(runs, options, report, prompts), max_pixels=max_pixels)
    found = replace(found, image=str(image), bundle=str(bundle))
    found.save(output)
    if drawn is not None:
        write_picture(draw_segments(loaded.rgb, found.runs), drawn)
    empty = int((found.runs.areas() == 0).sum())
    if as_json:
        print_json("segments", file=str(output), image=str(image), notes=list(loaded.notes), **found.described())
        return
    words = f"{output}: {len(found)} segments, {size_words(output.stat().st_size)}"
    words += f", {empty} of them empty" if empty else ""
    click.echo(printable(words + (", with embeddings" if found.embeddings is not None else "")))


def _prompts(points: tuple[str, ...], boxes: tuple[str, ...]) -> Prompts | None:
    if not points and not boxes:
        return None
    pairs = [_numbers("--point", word, 2) for word in points]
    sides = [_numbers("--box", word, 4) for word in boxes]
    return Prompts(np.array(pairs, np.float64).reshape(-1, 2), np.array(sides, np.float64).reshape(-1, 4))


def _numbers(option: str, word: str, count: int) -> list[float]:
    try:
        numbers = [float(part) for part in word.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        todo = "give x,y" if count == 2 else "give left,top,right,bottom"
        raise InputError(f"use {option} {word}", f"it is not {count} numbers", f"{todo} in pixels of the photo")
    return numbers


def _check(masks: Path | None, prompts: Prompts | None, options: dict[str, Any]) -> None:
    """Raise an InputError for an option that nothing would read."""
    used = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if masks is not None and prompts is not None:
        used = ["--masks"]
    if used and (masks is not None or prompts is not None):
        other = "--point or --box" if prompts is not None else "--masks"
        raise InputError(f"use {used[0]} with {other}", "only one of them can say what is wanted", "leave one out")
