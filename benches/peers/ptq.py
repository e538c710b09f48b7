"""Public quantizers side by side on one vision transformer with trained weights: MobileSAM's encoder at 512x512.

    python benches/peers/ptq.py WORK mobile_sam.pt PHOTOS OTHER_PHOTOS [-o results.json]

Each tool makes an int8 graph of the same ONNX file with the same photos, in a process of its own. Of each are told: the
features' cosine with fp32's on other photos; the IoU of the masks that SAM's decoder makes of them; how many products
with a weight became integer, for onnxruntime's CPU and for TensorRT-RTX's compiler; what quantizing took; and the time
of a run on onnxruntime's CPU, in turns. nvidia-modelopt is installed into WORK without touching this environment.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from benches.peers import mobile_sam
from benches.peers.made import failures_as_absence, install
from benches.peers.options import count, parser
from benches.peers.ptq_judge import judge
from benches.peers.quantizers import MODEL, PHOTOS, cpu_file
from benches.peers.result import save, summarise
from benches.peers.run import say
from benches.peers.side import ROOT, AbsentError, Comparison, Side
from benches.peers.table import missing_line
from benches.peers.turns import FailedError, last_words, take_turns
from edgeseg.environment import envelope

Body = dict[str, Any]

TOOLS = {
    "edgeseg": "edgeseg int8",
    "ort-minmax": "onnxruntime.quantization, MinMax",
    "ort-entropy": "onnxruntime.quantization, Entropy",
    "ort-percentile": "onnxruntime.quantization, Percentile",
    "ort-defaults-minmax": "the same, MinMax, every operator",
    "modelopt-entropy": "nvidia-modelopt, entropy (its default)",
    "modelopt-max": "nvidia-modelopt, max",
}
FP32 = "fp32"
HEADS = (
    ("cosine", 8),
    ("worst", 8),
    ("masks", 7),
    ("CPU int", 9),
    ("RTX int", 9),
    ("quantize", 9),
    ("MiB", 6),
    ("run", 8),
)
PEER = "modelopt"
# Its own requirements, without torch and the GPU's packages: a CPU calibrates here.
PEER_PACKAGES = (
    *("nvidia-modelopt==0.47.0", "onnx~=1.21.0", "onnxruntime~=1.24.2", "onnxconverter-common~=1.16.0", "onnxslim"),
    *("onnxscript", "onnx_ir", "lief", "cppimport", "pybind11", "mako", "pulp<4", "omegaconf", "ninja", "nvidia-ml-py"),
    *("antlr4-python3-runtime==4.9.*", "ml_dtypes", "flatbuffers", "protobuf<7", "typing-inspection"),
    *("pydantic", "pydantic-core", "annotated-types"),
)


def main(words: list[str]) -> int:
    """Quantize, judge, time, print the table, write the JSON; 1 if a tool or a graph of it failed."""
    options = parse(words)
    test, work = mobile_sam.chosen(options.test, options.photos), options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    prepare(work, options)
    made, left_out = quantize(work, options.only)
    rows = judge(work, options.weights, test, made)
    times, untimed = measure(work, (FP32, *made), options.rounds)
    left_out += untimed
    body = envelope(
        shown(options),
        photos={"calibration": options.photos, "test": options.photos, "size": mobile_sam.SIZE},
        tools=[{"name": name, "title": TOOLS.get(name, name), **made.get(name, {}), **rows[name]} for name in rows],
        times=times,
        left_out=left_out,
    )
    print("\n".join(lines(body)))
    save(body, options.output)
    return int(any(missing["failed"] for missing in left_out))


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    taken = parser(__doc__, rounds=5)
    taken.add_argument("weights", type=Path, help="mobile_sam.pt, as published")
    taken.add_argument("calibrate", type=Path, help="folder of photos")
    taken.add_argument("test", type=Path, help="folder of other photos")
    taken.add_argument("--photos", type=count, default=16, help="how many of each (16)")
    taken.add_argument("--only", type=lambda text: text.split(","), default=list(TOOLS), metavar="TOOLS")
    options = taken.parse_args(words)
    unknown = sorted(set(options.only) - set(TOOLS))
    if unknown:
        taken.error(f"there is no {', '.join(unknown)}; there are {', '.join(TOOLS)}")
    return options


def shown(options: argparse.Namespace) -> str:
    """The command as it can be typed elsewhere."""
    only = "" if options.only == list(TOOLS) else f" --only {','.join(options.only)}"
    places = " ".join(("mobile_sam.pt", *(_place(path) for path in (options.calibrate, options.test))))
    return f"python benches/peers/ptq.py WORK {places} --photos {options.photos} --rounds {options.rounds}{only}"


def _place(folder: Path) -> str:
    """The last names of a folder of photos: `camvid/train/images`."""
    return "/".join(folder.resolve().parts[-3:]).lstrip("/")


def prepare(work: Path, options: argparse.Namespace) -> None:
    """The fp32 graph, and the calibration photos in one file."""
    say("the fp32 graph and the photos")
    mobile_sam.export(options.weights, work / MODEL)
    photos = [mobile_sam.photo(path)[0][0] for path in mobile_sam.chosen(options.calibrate, options.photos)]
    np.save(work / PHOTOS, np.stack(photos))


def quantize(work: Path, names: list[str]) -> tuple[dict[str, Body], list[Body]]:
    """Run the tools; what each says of itself, and which cannot be had here or failed, with the reason."""
    made: dict[str, Body] = {}
    left_out = []
    for name in names:
        say(f"{name}: quantizing")
        try:
            made[name] = _quantized(work, name)
        except (AbsentError, FailedError) as error:
            reason, failed = str(error).replace(str(work), "WORK"), isinstance(error, FailedError)
            left_out.append({"name": name, "title": TOOLS[name], "reason": reason, "failed": failed})
    return made, left_out


def _quantized(work: Path, name: str) -> Body:
    environment = dict(os.environ)
    if name.startswith(PEER):
        environment["PYTHONPATH"] = str(peer_packages(work))
    log = work / f"{name}.log"
    with log.open("w") as errors:
        words = [sys.executable, "-m", "benches.peers.quantizers", name, str(work)]
        said = subprocess.run(words, check=False, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors)
    if said.returncode:
        raise FailedError(last_words(log, said.returncode))
    found: Body = json.loads(said.stdout)
    return found


def peer_packages(work: Path) -> Path:
    """A folder with nvidia-modelopt and the versions of onnx and onnxruntime that it wants. Raises AbsentError."""
    folder = work / PEER
    with failures_as_absence(PEER):
        install(folder, *PEER_PACKAGES)
    return folder


def measure(work: Path, names: Sequence[str], rounds: int) -> tuple[list[Body], list[Body]]:
    """Runs of the tools' graphs, in turns: the times, and which could not be timed, with the reason."""
    sides = tuple(side(name) for name in names)
    found = summarise(Comparison("ptq", "", "", sides), take_turns(work, sides, rounds, say), work)
    left_out = found["left_out"]
    for missing in left_out:
        missing |= {"name": missing["name"].rpartition("/")[2], "reason": f"not timed: {missing['reason']}"}
    return found["sides"], left_out


def side(name: str) -> Side:
    """One graph on onnxruntime's CPU."""
    file = MODEL if name == FP32 else cpu_file(name)
    opens = "benches.peers.ptq_judge:in_onnxruntime"
    return Side(f"ptq/{name}", TOOLS.get(name, FP32), opens, "onnxruntime, its defaults", options={"file": file})


def lines(body: Body) -> Iterator[str]:
    """The result for a terminal."""
    times = {time["name"].rpartition("/")[2]: time for time in body["times"]}
    yield " ".join((f"{'':38}", *(head.rjust(width) for head, width in HEADS)))
    for tool in body["tools"]:
        run = times.get(tool["name"])
        cells = [
            f"{tool['title']:38} {tool['cosine_mean']:8.5f} {tool['cosine_worst']:8.5f} {tool['mask_iou']:7.4f}",
            f"{_share(tool['cpu']):>9} {_share(tool['rtx']):>9}",
            f"{tool['quantize_s']:8.0f}s {tool['peak_bytes'] / 2**20:6.0f}" if "quantize_s" in tool else f"{'':16}",
            f"{run['median_s'] * 1e3:6.0f}ms" if run else "",
        ]
        yield " ".join(cells)
    yield from map(missing_line, body["left_out"])
    yield "CPU int, RTX int: products with a weight that are integer, of how many; in the JSON MatMul and Conv apart"


def _share(counted: Body | None) -> str:
    if counted is None:
        return "-"
    return f"{sum(kind['integer'] for kind in counted.values())}/{sum(kind['all'] for kind in counted.values())}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
