"""Trivial sides for tests of `benches/peers`; each is opened in a process of its own."""

import time

import numpy as np

from benches.peers.side import AbsentError


def sleeper(work, *, name, seconds=0.0, output=(1, 2, 3)):
    """Notes each run in `order.txt`."""

    def run():
        with (work / "order.txt").open("a") as file:
            print(name, file=file)
        time.sleep(seconds)
        return np.array(output)

    return run


def hungry(work, *, first_mib):
    """Holds so much memory in its first run, and none later."""
    sizes = [first_mib]

    def run():
        return np.ones(((sizes.pop() if sizes else 0) << 20) + 1, np.uint8)[:1].copy()

    return run


def chatty(work):
    """Prints where the answers go."""
    print("opening")
    return lambda: np.array([print("running") or 1])


def missing(work):
    raise AbsentError(f"there is nothing in {work}")


def broken(work, *, runs):
    """Fails after so many runs."""
    left = iter(range(runs))

    def run():
        return np.array([next(left)])

    return run


def leaver(work, *, runs):
    """Cannot be had any more after so many runs."""
    left = iter(range(runs))

    def run():
        if next(left, None) is None:
            raise AbsentError("the licence has run out")
        return np.zeros(1)

    return run


def made(work):
    """A file that a side needs."""
    (work / "made.txt").open("a").write("made\n")


def not_made(work):
    raise AbsentError("no network")


def reader(work):
    """Reads that file."""
    text = (work / "made.txt").read_text()
    return lambda: np.array([len(text)])
