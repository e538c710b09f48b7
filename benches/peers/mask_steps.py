"""Where the processor's time goes when a photo becomes the masks of everything in it, and these the weights of patches.

    python benches/peers/mask_steps.py WORK mobile_sam.pt PHOTO [--per-side 32] [--rounds 2] [-o results.json]

All of it runs on one thread and is counted in processor time, so that what else the machine does matters little.
Python's profiler costs the host's steps something: their shares are upper bounds. WORK is that of `automatic.py`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from cProfile import Profile
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import numpy.typing as npt

import edgeseg
from benches.peers.automatic import BUNDLE, WEIGHTS, asked, bundle
from benches.peers.result import Body, save
from edgeseg.chain import Steps
from edgeseg.environment import envelope
from edgeseg.images import load
from edgeseg.placement import place
from edgeseg.segmenter import Segmenter
from edgeseg.segments import automatic, candidates
from edgeseg.segments.finder import Wish
from edgeseg.segments.pooling import AreaPooling
from edgeseg.segments.scaling import MaskScaler

PATCHES = 28 * 28  # of a CLIP of patch 16 at 448 pixels
STEPS = {
    "graphs": "encoder and decoder",
    "scaling": "bounds of the small masks, and those that are tried at the photo's size",
    "suppression": "order by the estimate, comparing boxes",
    "runs": "masks to run lengths",
    "pooling": f"area of each mask in {PATCHES} patches",
    "rest": "resizing the photo, thresholds, copies",
}


def main(words: list[str]) -> int:
    """Measure, print the table, write the JSON."""
    options = asked(__doc__, words)
    work: Path = options.work
    bundle(work)
    rgb = np.ascontiguousarray(load(options.photo).rgb)
    with edgeseg.open(work / BUNDLE, backend="onnxruntime", precision="fp32", threads=1) as segmenter:
        rounds = [measure(segmenter, rgb, options.per_side) for _ in range(options.rounds)]
    rows = table([spent for spent, _ in rounds])
    grid = f"--per-side {options.per_side} --rounds {options.rounds}"
    typed = f"python benches/peers/mask_steps.py WORK {WEIGHTS} {options.photo.name} {grid}"
    body = envelope(typed, photo=options.photo.name, masks=rounds[0][1], steps=rows)
    for row in rows:
        print(f"{row['name']:12} {row['median_s']:9.3f} s {row['share_percent']:7.3f} %  {row['included']}")
    save(body, options.output)
    return 0


def measure(segmenter: Segmenter, rgb: npt.NDArray[np.uint8], per_side: int) -> tuple[dict[str, float], int]:
    """Seconds of the processor in each of `STEPS`, and the number of masks."""
    manifest, profile = segmenter.bundle.manifest, Profile(time.process_time)
    placement = place((rgb.shape[0], rgb.shape[1]), manifest.canvases, manifest.recipe)
    start = time.process_time()
    with profile:
        runs = segmenter.segments(rgb, Wish(options={"points_per_side": per_side})).runs
        AreaPooling(placement, PATCHES).weights(runs)
    whole = time.process_time() - start
    inside = {entry.code: entry.totaltime for entry in profile.getstats()}

    def spent(*functions: Callable[..., Any]) -> float:
        return sum(inside.get(function.__code__, 0.0) for function in functions)

    made = {
        "graphs": spent(Steps.run),
        "scaling": spent(MaskScaler.part, MaskScaler.bounds, candidates.scaled),
        "suppression": spent(candidates.kept) - spent(candidates.scaled),
        "runs": spent(automatic._segments),
        "pooling": spent(AreaPooling.__init__, AreaPooling.weights),
    }
    return {**made, "rest": whole - sum(made.values())}, len(runs)


def table(rounds: Sequence[dict[str, float]]) -> list[Body]:
    """Of each step the median over the rounds, and its share, of the sum of the medians."""
    medians = {name: median(one[name] for one in rounds) for name in STEPS}
    whole = sum(medians.values())
    return [
        {
            "name": name,
            "included": STEPS[name],
            "seconds": [one[name] for one in rounds],
            "median_s": medians[name],
            "share_percent": 100 * medians[name] / whole,
        }
        for name in STEPS
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
