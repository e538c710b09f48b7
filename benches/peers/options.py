"""What all the scripts take on the command line; what cannot be is refused before anything is measured."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def parser(about: str | None, rounds: int) -> argparse.ArgumentParser:
    """One that takes the work folder, `--rounds` and `-o`.

    Args:
        about: the script's text.
        rounds: how many if none are asked for.
    """
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("work", type=Path)
    made.add_argument("--rounds", type=count, default=rounds, help=f"counted runs of every side ({rounds})")
    made.add_argument("-o", "--output", type=place, help="write the result there, as JSON")
    return made


def count(text: str) -> int:
    """A number from 1. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1")
    return int(text)


def place(text: str) -> Path:
    """Where a file can be written. Raises ArgumentTypeError."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} cannot be written")
    return path
