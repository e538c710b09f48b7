"""Helpers for tests that run engines over a data set."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from edgeseg.benches.accuracy import State, evaluate
from edgeseg.images import load
from edgeseg.vocabulary import Vocabulary
from tests.benches.test_scores import slow_confusion
from tests.edgeseg.tiny_bundle import CLASSES
from tests.edgeseg.vocabulary.tiny import DIMENSIONS

ROOT = str(Path(__file__).resolve().parents[2])


def counted_by_hand(segmenter, dataset, **options):
    pairs = []
    for item in dataset.items:
        result = segmenter(load(item.image).rgb, CLASSES, **options)
        labels = dataset.load(dataset.items.index(item)).labels
        pairs.append((labels, np.minimum(result.labels, len(CLASSES)).astype(int)))
    return slow_confusion(pairs, len(CLASSES))


def unit_vocabulary(count):
    vectors = np.random.default_rng(0).standard_normal((count, DIMENSIONS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Vocabulary(tuple(f"class {i}" for i in range(count)), vectors, np.zeros(count, np.float32))


class Interrupted:
    """Presses Ctrl-C once so many images are done."""

    def __init__(self, after):
        self.after = after

    def __call__(self, done, total):
        if done == self.after:
            raise KeyboardInterrupt


def half_done(segmenter, dataset, path, **more):
    state = State(path)
    with pytest.raises(KeyboardInterrupt):
        evaluate(segmenter, dataset, state=state, progress=Interrupted(2), **more)
    return state


# Stays before its last image, so that a run which is to be stopped never ends by itself, however slow the stopping is.
KILLED = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it runs in the background
sys.path.insert(0, {root!r})
import edgeseg
from edgeseg.benches.accuracy import State, evaluate
from edgeseg.benches.datasets import open_dataset

def report(done, total):
    print(done, flush=True)
    if done == total - 1:
        time.sleep(600)

if __name__ == "__main__":
    with edgeseg.open({bundle!r}, backend="onnxruntime") as segmenter:
        state = State(__import__("pathlib").Path({state!r}), 0.0)
        evaluate(segmenter, open_dataset("folder", {folder!r}), processes={processes}, state=state, progress=report)
"""


def start(tmp_path, tiny_path, folder, processes):
    script = tmp_path / "killed.py"
    values = {"root": ROOT, "bundle": str(tiny_path), "folder": str(folder), "state": str(tmp_path / "run.state")}
    script.write_text(textwrap.dedent(KILLED.format(processes=processes, **values)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, str(script)], text=True, env=environment, **pipes)  # type: ignore


def children(pid):
    """Process ids of its children that are still alive."""
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pids, patience_s=60):
    """Whether all these processes end, soon or late."""
    deadline = time.monotonic() + patience_s
    while not all(map(_ended, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return all(map(_ended, pids))


def _ended(pid):
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z"
