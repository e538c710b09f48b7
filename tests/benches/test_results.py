"""What is published can be traced: each result in benches/results says where it was measured and what was typed."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from edgeseg.benches.report import read_result
from edgeseg.benches.report.forms import ENVIRONMENT
from edgeseg.benches.report.shape import misfit

ROOT = Path(__file__).resolve().parents[2]
RESULTS = sorted((ROOT / "benches/results").glob("*.json"))
FOLDER_OF_SOMEONE = re.compile(r"(?<![\w.:])/(home|root|Users|work|tmp|mnt|media|data|srv|opt)/")


def problems(path: Path) -> list[str]:
    """What is wrong with a published result."""
    text = path.read_text()
    body = json.loads(text)
    found = misfit(body, {"schema": int, "command": str, "environment": ENVIRONMENT})
    typed = str(body.get("command_line") or body.get("command"))
    said = [found] if found else []
    said += [] if re.match(r"(edgeseg|python) \S", typed) else ["it does not say what was typed"]
    said += [f"there is no {script}" for script in scripts(typed) if not (ROOT / script).is_file()]
    said += [f"it names {name[0]}" for name in FOLDER_OF_SOMEONE.finditer(text)]
    if typed.startswith("edgeseg bench") and reported(body):
        read_result(path)
    return said


def reported(body: dict[str, Any]) -> bool:
    """Whether reports have a section for it: they have none for rejection and for the mask recall of a SAM alone."""
    return body["command"] != "bench rejection" and ("scores" in body or "mask_recall" not in body)


def scripts(typed: str) -> list[str]:
    """The files of this repository that a command line runs."""
    words = shlex.split(typed)
    return [word for word in words if word.endswith(".py") or word.startswith("scripts/")]


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_published_result_can_be_traced(path):
    assert problems(path) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, []),
        ({"command_line": None}, ["it does not say what was typed"]),
        ({"command_line": "python benches/peers/gone.py WORK"}, ["there is no benches/peers/gone.py"]),
        ({"root": "/home/me/data"}, ["it names /home/"]),
        ({"environment": {}}, ["environment has no 'edgeseg'"]),
    ],
)
def test_what_cannot_be_traced_is_found(tmp_path, change, words):
    environment = {name: "" for name in ENVIRONMENT} | {"cores": 1, "packages": {}}
    body = {
        "schema": 1,
        "command": "peers",
        "command_line": "python benches/peers/run.py -o b.json",
        "environment": environment,
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(body | change))
    assert problems(path) == words
