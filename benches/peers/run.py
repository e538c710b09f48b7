"""Peers side by side: one table, from one run on one machine, on one input.

    python benches/peers/run.py WORK [--only ebseg,sam/torch] [--rounds 3] [-o results.json]

WORK keeps checkpoints, bundles and exports, some GB, made at the first call. Sides run in processes of their own that
take turns. `docs/benchmarks.md` says what is compared. Not part of CI: some peers are fetched.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benches.peers.comparisons import COMPARISONS
from benches.peers.options import parser
from benches.peers.result import save, summarise
from benches.peers.side import Comparison
from benches.peers.table import lines
from benches.peers.turns import take_turns
from edgeseg.environment import envelope


def main(words: list[str]) -> int:
    """Measure, print the table, write the JSON; 1 if a side failed."""
    options = parse(words)
    work = options.work.resolve()
    chosen = select(COMPARISONS, options.only)
    done = [summarise(each, take_turns(work, each.sides, options.rounds, say), work) for each in chosen]
    body = envelope(shown(options), rounds=options.rounds, comparisons=done)
    print("\n".join(lines(body)))
    save(body, options.output)
    return int(any(missing["failed"] for each in done for missing in each["left_out"]))


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    taken = parser(__doc__, rounds=3)
    taken.add_argument("--only", type=lambda text: text.split(","), metavar="NAMES", help="comparisons or sides")
    return taken.parse_args(words)


def select(comparisons: tuple[Comparison, ...], names: list[str] | None) -> list[Comparison]:
    """The comparisons and sides that are named, a side with the one that it is held against; all for None."""
    if names is None:
        return list(comparisons)
    known = {name for each in comparisons for name in (each.name, *(side.name for side in each.sides))}
    unknown = sorted(set(names) - known)
    if unknown:
        raise SystemExit(f"there is no {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return [cut for each in comparisons for cut in _cut(each, names)]


def _cut(comparison: Comparison, names: list[str]) -> Iterator[Comparison]:
    """The comparison with the named sides, if there are any."""
    whole = comparison.name in names
    first, *others = comparison.sides
    kept = [side for side in others if whole or side.name in names]
    if kept or whole or first.name in names:
        yield replace(comparison, sides=(first, *kept))


def shown(options: argparse.Namespace) -> str:
    """The command as it can be typed elsewhere: without this machine's paths."""
    only = f" --only {','.join(options.only)}" if options.only else ""
    return f"python benches/peers/run.py WORK{only} --rounds {options.rounds}"


def say(text: str) -> None:
    """What happens now, on stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
