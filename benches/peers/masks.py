"""Automatic masks of a photo on the CPU: the authors' generator and ours, the same weights, in processes of their own.

    python -m benches.peers.masks mobile_sam.pt photo.jpg --turns 2 -o masks.json

A side's seconds are those of one photo in memory to its run lengths in memory, models loaded before; its peak memory is
its process's. The sides take turns, and the ratios are of medians. The authors' generator takes minutes and 3 GB.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.backends.host import physical_cores
from edgeseg.environment import environment
from edgeseg.images import load


def ours(bundle: Path, rgb: Any, per_side: int) -> tuple[float, int]:
    """Seconds and number of masks."""
    import edgeseg
    from edgeseg.segments.finder import Wish

    with edgeseg.open(bundle, "onnxruntime", "fp32", threads=physical_cores()) as segmenter:
        segmenter.segments(rgb[:64, :64], Wish(options={"points_per_side": 1}))  # opens the engines
        started = time.perf_counter()
        found = segmenter.segments(rgb, Wish(options={"points_per_side": per_side}))
        return time.perf_counter() - started, len(found)


def theirs(checkpoint: Path, rgb: Any, per_side: int) -> tuple[float, int]:
    """Seconds and number of masks."""
    import torch
    from segment_anything import SamAutomaticMaskGenerator

    from tests.reference.mobile_sam import mobile_sam

    torch.set_num_threads(physical_cores())
    model = mobile_sam(checkpoint)
    generator = SamAutomaticMaskGenerator(model, points_per_side=per_side, output_mode="uncompressed_rle")
    started = time.perf_counter()
    found = generator.generate(rgb)
    return time.perf_counter() - started, len(found)


def peak_bytes() -> int:
    """Of this process, since its start."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024


def measure(side: str, arguments: argparse.Namespace, bundle: Path) -> dict[str, Any]:
    """One side in a process of its own."""
    file = bundle if side == "ours" else arguments.checkpoint
    words = [str(file), str(arguments.photo), "--per-side", str(arguments.per_side), "--side", side]
    done = subprocess.run([sys.executable, "-m", "benches.peers.masks", *words], check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Both sides in turns, and what ours is of theirs."""
    from edgeseg.export.bundle import Checkpoint, export_bundle

    bundle = arguments.output.with_suffix(".bundle")
    export_bundle(Checkpoint(arguments.checkpoint), [], bundle, overwrite=True)
    turns = [{side: measure(side, arguments, bundle) for side in ("ours", "theirs")} for _ in range(arguments.turns)]

    def median(side: str, what: str) -> float:
        return float(statistics.median(turn[side][what] for turn in turns))

    faster = median("theirs", "seconds") / median("ours", "seconds")
    share = median("ours", "peak_bytes") / median("theirs", "peak_bytes")
    surroundings = {"environment": environment(), "per_side": arguments.per_side, "photo": arguments.photo.name}
    return {**surroundings, "times_faster": faster, "memory_share": share, "turns": turns}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--per-side", type=int, default=32)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--side", choices=["ours", "theirs"])
    parser.add_argument("-o", "--output", type=Path, default=Path("masks.json"))
    arguments = parser.parse_args()
    if arguments.side:
        rgb = np.ascontiguousarray(load(arguments.photo).rgb)
        run = ours if arguments.side == "ours" else theirs
        seconds, count = run(arguments.checkpoint, rgb, arguments.per_side)
        print(json.dumps({"seconds": seconds, "masks": count, "peak_bytes": peak_bytes()}))
        return
    result = compare(arguments)
    arguments.output.write_text(json.dumps(result, indent=2))
    print(f"{result['times_faster']:.2f} times faster, {result['memory_share']:.2f} of the peak memory")


if __name__ == "__main__":
    main()
