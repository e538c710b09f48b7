"""Masks of everything in a photo on the CPU: segment-anything's generator and edgeseg's, MobileSAM's published weights.

    python benches/peers/automatic.py WORK mobile_sam.pt PHOTO [--per-side 32] [--rounds 2] [-o results.json]

Each side runs in a process of its own, and they take turns. A run is a photo in memory to its masks as run lengths in
memory, with the authors' thresholds; of each the JSON has the number of masks. The authors' generator takes minutes and
3 GB. "same" is the share of pixels that lie under as many masks of the one as of the other.
"""

from __future__ import annotations

import json
import shutil
import sys
from argparse import Namespace
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from benches.peers import inputs
from benches.peers.made import command, whole
from benches.peers.options import count, parser
from benches.peers.result import Body, save, summarise
from benches.peers.run import say
from benches.peers.side import Array, Comparison, Run, Side
from benches.peers.table import lines
from benches.peers.turns import take_turns
from edgeseg.environment import envelope
from edgeseg.images import load

WEIGHTS, PHOTO, BUNDLE = "mobile_sam.pt", "photo.npy", "mobile-sam.bundle"
WARM_UP = 4  # points on each side in the uncounted run
OURS, THEIRS = "automatic/edgeseg", "automatic/segment-anything"


def main(words: list[str]) -> int:
    """Measure, print the table, write the JSON; 1 if a side is missing."""
    options = asked(__doc__, words)
    work: Path = options.work
    np.save(work / PHOTO, np.ascontiguousarray(load(options.photo).rgb))
    compared = comparison(options.per_side)
    turns = take_turns(work, compared.sides, options.rounds, say)
    done = summarise(compared, turns, work)
    for side in done["sides"]:
        side["masks"] = json.loads(counts_file(work, side["name"]).read_text())
    grid = f"--per-side {options.per_side} --rounds {options.rounds}"
    typed = f"python benches/peers/automatic.py WORK {WEIGHTS} {options.photo.name} {grid}"
    body: Body = envelope(typed, rounds=options.rounds, photo=options.photo.name, comparisons=[done])
    print("\n".join(lines(body)))
    save(body, options.output)
    return int(any(each["failed"] for each in done["left_out"]))


def asked(about: str | None, words: list[str]) -> Namespace:
    """What is on the command line of a script about the masks of a photo; its folder is there, with the weights."""
    taken = parser(about, rounds=2)
    taken.add_argument("weights", type=Path, help="mobile_sam.pt, as published")
    taken.add_argument("photo", type=Path)
    taken.add_argument("--per-side", type=count, default=32, help="points of the grid, on each side (32)")
    options = taken.parse_args(words)
    options.work = options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(options.weights, options.work / WEIGHTS)
    return options


def comparison(per_side: int) -> Comparison:
    """Ours and theirs at a grid of so many points on each side."""
    options = {"per_side": per_side}
    ours = Side(
        name=OURS,
        title="edgeseg fp32",
        opens="benches.peers.automatic:ours",
        included="edgeseg.open(...).segments(photo) on onnxruntime",
        needs=("benches.peers.automatic:bundle",),
        packages=("onnxruntime", "numpy"),
        options=options,
        ours=True,
    )
    theirs = Side(
        name=THEIRS,
        title="segment-anything, torch eager",
        opens="benches.peers.automatic:theirs",
        included="SamAutomaticMaskGenerator, 64 points a batch as it is by default, TinyViT of timm in front",
        packages=("segment-anything", "torch", "timm"),
        options=options,
    )
    return Comparison(
        name="automatic",
        title=f"MobileSAM, a photo to the masks of everything in it, {per_side}x{per_side} points",
        included="uint8 image in memory to run lengths in memory, resizing, encoder, decoder, filters and all; the "
        f"first, uncounted run asks {WARM_UP}x{WARM_UP} points",
        sides=(ours, theirs),
    )


def bundle(work: Path) -> None:
    """MobileSAM in fp32, with engines for the CPU."""
    if not (work / BUNDLE).exists():
        with whole(work / BUNDLE) as folder:
            command(["-m", "edgeseg", "export", str(work / WEIGHTS), "-o", str(folder / BUNDLE)])
            command(["-m", "edgeseg", "build", str(folder / BUNDLE), "--backend", "onnxruntime", "--precision", "fp32"])


def ours(work: Path, *, per_side: int) -> Run:
    """`Segmenter.segments`; a run gives how many masks lie on each pixel."""
    import edgeseg
    from edgeseg.segments.finder import Wish

    segmenter = edgeseg.open(work / BUNDLE, backend="onnxruntime", precision="fp32", threads=inputs.threads())
    photo, grids = np.load(work / PHOTO), _grids(per_side)

    def run() -> Array:
        found = segmenter.segments(photo, Wish(options={"points_per_side": next(grids)})).runs
        return told(work, OURS, photo.shape[:2], [found.of(index) for index in range(len(found))])

    return run


def theirs(work: Path, *, per_side: int) -> Run:
    """The authors' generator with the same weights."""
    import torch

    from tests.reference.mobile_sam import mobile_sam
    from tests.reference.sam_masks import generator

    torch.set_num_threads(inputs.threads())
    model, photo, grids = mobile_sam(work / WEIGHTS), np.load(work / PHOTO), _grids(per_side)

    def run() -> Array:
        made = generator(model, points_per_side=next(grids))
        return told(work, THEIRS, photo.shape[:2], [one["segmentation"]["counts"] for one in made.generate(photo)])

    return run


def _grids(per_side: int) -> Iterator[int]:
    """Of each run in turn; the first one is not counted."""
    return chain([WARM_UP], repeat(per_side))


def counts_file(work: Path, side: str) -> Path:
    """Where a side leaves the number of its masks."""
    return work / f"{side.replace('/', '-')}-masks.json"


def told(work: Path, side: str, size: tuple[int, ...], masks: list[Any]) -> Array:
    """(H, W) int32, masks on each pixel; their number goes into a file. Costs milliseconds, the same on both sides."""
    counts_file(work, side).write_text(json.dumps(len(masks)))
    changes = np.zeros(size[0] * size[1] + 1, np.int32)
    for runs in masks:
        ends = np.cumsum(np.asarray(runs, np.int64))
        np.add.at(changes, ends[:-1], np.where(np.arange(len(ends) - 1) % 2 == 0, 1, -1))
        if len(ends) % 2 == 0:  # the last run is inside
            changes[-1] -= 1
    covered: Array = np.cumsum(changes[:-1], dtype=np.int32).reshape(size[1], size[0]).T
    return covered


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
