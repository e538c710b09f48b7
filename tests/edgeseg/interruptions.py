"""Cutting the changes of a bundle short: by an error at a chosen step, or by the end of the process."""

import itertools
import signal
import subprocess
import sys
from pathlib import Path

from tests.edgeseg.small_bundle import add_graph, graph

ROOT = str(Path(__file__).resolve().parents[2])


def change(bundle, error=None):
    """An edit that replaces files, adds some and removes some; `error` cuts it short."""
    with bundle.edit() as edit:
        add_graph(edit, graph("sam", "fp16"), "changed")
        add_graph(edit, graph("head", "int8"))
        edit.remove_graphs(lambda spec: spec.name == "text")
        (edit.scratch() / "waste").write_text("waste")
        if error:
            raise error


def cut_at(step, original, error, lasting=False):
    """The function `original`, whose call number `step` fails; if `lasting`, all later ones too."""
    calls = itertools.count()

    def call(*args, **options):
        number = next(calls)
        if number == step or (lasting and number > step):
            raise error
        return original(*args, **options)

    return call


def killed_at(step, code):
    """Runs `code` in a process that dies without cleaning up at its n-th renaming; whether it got that far."""
    script = (
        f"import os, sys\nsys.path.insert(0, {ROOT!r})\nleft = [{step}]\n"
        "def counted(original):\n  def call(*args):\n    left[0] -= 1\n    if left[0] < 0: os._exit(9)\n"
        "    return original(*args)\n  return call\n"
        "from pathlib import Path\nfrom tests.edgeseg.small_bundle import *\n"
        "from tests.edgeseg.interruptions import change\n"
        f"os.replace, os.rename = counted(os.replace), counted(os.rename)\n{code}"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert process.returncode in (0, 9), process.stderr
    return process.returncode == 9


def terminated_at(step, place, words):
    """Runs a command line in a process that gets SIGTERM at the n-th call of `place`, "module:class:method"."""
    module, owner, name = place.split(":")
    script = (
        f"import importlib, os, signal, sys\nsys.path.insert(0, {ROOT!r})\n"
        f"owner, left = getattr(importlib.import_module({module!r}), {owner!r}), [{step}]\n"
        f"original = getattr(owner, {name!r})\n"
        "def counted(*args, **options):\n  left[0] -= 1\n  if left[0] < 0: os.kill(os.getpid(), signal.SIGTERM)\n"
        "  return original(*args, **options)\n"
        f"setattr(owner, {name!r}, counted)\nfrom edgeseg.cli import main\nsys.exit(main({list(map(str, words))!r}))\n"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert process.returncode == -signal.SIGTERM, process.stderr
