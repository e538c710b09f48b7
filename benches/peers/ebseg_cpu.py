"""EBSeg-B on a CPU: this project's chain against the authors' formulation in torch, in turn, in processes of their own.

    python benches/peers/ebseg_cpu.py WORK [--runs 5] [--json FILE]

Both read one 640x640 image and 20 classes whose text is cached, on stand-in weights (random: they change no cost), and
make the label map. The original runs CLIP's tail for all ten predictions and makes the full-size attention bias, as
published. WORK holds the checkpoint and the bundle, made at the first call. Peak memory is the whole process's, weights
and libraries included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SIZE = 640
CLASSES = 20
WARM = 1  # runs before the counted ones: they load weights and fill caches


def main() -> None:
    """Parse, run one side as a worker, or both in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", choices=["original", "edgeseg"])
    parser.add_argument("--classes", type=int, default=CLASSES)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(worker(arguments.work, arguments.side, arguments.classes)))
        return
    report = compare(arguments.work, arguments.runs)
    print(table(report))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def prepare(work: Path) -> None:
    """Write stand-in.pth and stand-in.bundle, with its CPU engines, unless they are there."""
    work.mkdir(parents=True, exist_ok=True)
    checkpoint, bundle = str(work / "stand-in.pth"), str(work / "stand-in.bundle")
    if not Path(checkpoint).exists():
        subprocess.run([sys.executable, str(ROOT / "scripts/stand-in"), str(work)], check=True)
    if not Path(bundle).exists():
        edgeseg = [sys.executable, "-m", "edgeseg"]
        subprocess.run([*edgeseg, "export", checkpoint, "--size", f"{SIZE}x{SIZE}", "-o", bundle], check=True)
        subprocess.run([*edgeseg, "build", bundle, "--backend", "onnxruntime"], check=True)


def worker(work: Path, side: str, classes: int) -> dict[str, float]:
    """One process: a first run that is not counted, then one that is."""
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    embeddings = np.random.default_rng(1).standard_normal((classes, 512)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    run = {"original": _original, "edgeseg": _edgeseg}[side](work, image, embeddings)
    for _ in range(WARM):
        run()
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_bytes": peak_bytes()}


def peak_bytes() -> int:
    """Peak resident memory of this program; getrusage's figure would begin with that of the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def _edgeseg(work: Path, image: Any, embeddings: Any) -> Callable[[], Any]:
    import edgeseg
    from edgeseg.vocabulary import Vocabulary

    overlap = (np.arange(len(embeddings)) % 2).astype(np.float32)
    names = tuple(f"class {i}" for i in range(len(embeddings)))
    vocabulary = Vocabulary(names, embeddings, overlap)
    segmenter = edgeseg.open(work / "stand-in.bundle", backend="onnxruntime", precision="fp32")
    return lambda: segmenter(image, classes=vocabulary).labels


def _original(work: Path, image: Any, embeddings: Any) -> Callable[[], Any]:
    import torch

    sys.path.insert(0, str(ROOT))
    from tests.reference.ebseg_original import forward
    from tests.reference.sizes import BASE

    torch.set_flush_denormal(True)
    torch.set_num_threads(2)
    state = torch.load(work / "stand-in.pth", weights_only=True, mmap=True)["model"]
    background = torch.nn.functional.normalize(state["ov_classifier.bg_embed"], dim=-1)
    text = torch.cat((torch.from_numpy(embeddings), background)), (torch.arange(len(embeddings)) % 2).float()
    planes = torch.from_numpy(image).permute(2, 0, 1)
    return lambda: forward(state, BASE, planes, text).scores.argmax(0)


def compare(work: Path, runs: int) -> dict[str, Any]:
    """Both sides `runs` times in turn, and this project with 150 and 847 classes; medians and ratios."""
    from edgeseg.environment import envelope

    prepare(work)
    sides: dict[str, tuple[str, int]] = {
        "original": ("original", CLASSES),
        "edgeseg": ("edgeseg", CLASSES),
        "edgeseg 150": ("edgeseg", 150),
        "edgeseg 847": ("edgeseg", 847),
    }
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for _ in range(runs):
        for name, (side, classes) in sides.items():
            command = [sys.executable, __file__, str(work), "--side", side, "--classes", str(classes)]
            made = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            measured[name].append(json.loads(made))
    medians = {name: statistics.median(run["seconds"] for run in listed) for name, listed in measured.items()}
    peaks = {name: max(run["peak_bytes"] for run in listed) for name, listed in measured.items()}
    ratios = {
        "speed": medians["original"] / medians["edgeseg"],
        "memory": peaks["edgeseg"] / peaks["original"],
        "classes_847_to_150": medians["edgeseg 847"] / medians["edgeseg 150"],
    }
    said = {"command_line": f"python benches/peers/ebseg_cpu.py WORK --runs {runs}", "size": SIZE}
    return envelope("peers ebseg_cpu", **said, runs=measured, median_s=medians, peak_bytes=peaks, ratios=ratios)


def table(report: dict[str, Any]) -> str:
    """The report for a terminal."""
    lines = [f"{'':12} {'median s':>9} {'min':>7} {'max':>7} {'peak MiB':>9}"]
    for name, runs in report["runs"].items():
        seconds = [run["seconds"] for run in runs]
        numbers = report["median_s"][name], min(seconds), max(seconds), report["peak_bytes"][name] / 2**20
        lines.append(f"{name:12} {numbers[0]:9.2f} {numbers[1]:7.2f} {numbers[2]:7.2f} {numbers[3]:9.0f}")
    ratios = report["ratios"]
    lines.append(f"speed {ratios['speed']:.2f} times; memory {ratios['memory']:.2f} of the original's")
    lines.append(f"847 classes cost {ratios['classes_847_to_150'] - 1:.1%} more than 150")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
