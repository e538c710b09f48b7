"""A loose floor under the figures of `benches/peers/ebseg_cpu.py`, which measures and says what it includes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.slow]

BENCH = Path(__file__).resolve().parents[2] / "benches/peers/ebseg_cpu.py"
RUNS = 2


@pytest.fixture(scope="module")
def work(full_bundle, tmp_path_factory):
    """A folder with the checkpoint and the bundle that the comparison looks for."""
    from tests.export.full_size import write_checkpoint

    folder = tmp_path_factory.mktemp("speed")
    (folder / "stand-in.bundle").symlink_to(full_bundle("b")[0].path)
    write_checkpoint(folder, "b").rename(folder / "stand-in.pth")
    return folder


@pytest.fixture(scope="module")
def best(work):
    """Side → least seconds and most bytes of `RUNS` processes, the sides in turn."""
    made: dict[str, list[dict[str, float]]] = {"original": [], "edgeseg": []}
    for _ in range(RUNS):
        for side, runs in made.items():
            command = [sys.executable, str(BENCH), str(work), "--side", side]
            runs.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return {
        side: (min(run["seconds"] for run in runs), max(run["peak_bytes"] for run in runs))
        for side, runs in made.items()
    }


def test_chain_takes_less_than_half_the_time_of_the_authors_formulation(best):
    assert best["edgeseg"][0] < best["original"][0] / 2


def test_chain_needs_at_most_half_the_memory_of_the_authors_formulation(best):
    assert best["edgeseg"][1] <= best["original"][1] / 2
