"""EBSeg-B and -L at full size with the oracle's stand-in weights, exported by the command line's own process."""

import json
import subprocess
import sys
from pathlib import Path

from edgeseg.bundle import Bundle
from tests.reference.weights import ebseg_weights

CANVASES = {"b": ["640x640", "320x448"], "l": ["640x640", "224x256"]}  # 224x256 pools unevenly onto L's 11x12

# Runs the command and says on stderr how much memory the most hungry of its processes held.
MEASURED = """
import resource, subprocess, sys
code = subprocess.run([sys.executable, "-m", "edgeseg", *sys.argv[1:]]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


def write_checkpoint(folder: Path, variant, seed=0):
    """A released file's stand-in, `{"model": ...}`; without what inference never reads."""
    import torch

    path = folder / f"ebseg-{variant}.pth"
    torch.save({"model": {name: torch.from_numpy(value) for name, value in ebseg_weights(variant, seed).items()}}, path)
    return path


def export(folder: Path, variant):
    """The bundle of a variant at `CANVASES`, and the export's peak memory in KiB."""
    sizes = [word for size in CANVASES[variant] for word in ("--size", size)]
    words = ["export", str(write_checkpoint(folder, variant)), *sizes, "-o", str(folder / "made.bundle"), "--json"]
    process = subprocess.run([sys.executable, "-c", MEASURED, *words], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    (folder / f"ebseg-{variant}.pth").unlink()
    return Bundle.open(Path(json.loads(process.stdout)["bundle"])), int(process.stderr)
