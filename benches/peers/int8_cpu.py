"""INT8 against FP32 on onnxruntime's CPU: EBSeg-B at 640x640, the whole chain and the two encoders alone.

    python benches/peers/int8_cpu.py WORK [--rounds 5] [-o results.json]

Both run the graphs in the `cpu` form that `edgeseg build` derives, opened as the runtime opens them, in processes that
take turns. Random weights: they change no cost, but in int8 they fail the gate of `edgeseg build`, which is left out.
WORK holds the checkpoint and the bundle, made at the first call. "time" and "memory" are fp32's by int8's.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


from benches.peers import inputs
from benches.peers.made import BUNDLE
from benches.peers.options import parser
from benches.peers.result import save, summarise
from benches.peers.run import say
from benches.peers.side import Array, Comparison, Run, Side
from benches.peers.table import lines
from benches.peers.turns import take_turns
from benches.peers.ungated import sessions
from edgeseg.bundle import Bundle
from edgeseg.environment import envelope
from edgeseg.pipelines import get_pipeline

CANVAS = (inputs.EBSEG_SIZE, inputs.EBSEG_SIZE)
ENCODERS = ("sam", "clip_trunk")
_PRECISIONS = ("int8", "fp32")


def main(words: list[str]) -> int:
    """Measure, print the table, write the JSON; 1 if a side is missing."""
    options = parser(__doc__, rounds=5).parse_args(words)
    work = options.work.resolve()
    done = [summarise(each, take_turns(work, each.sides, options.rounds, say), work) for each in COMPARISONS]
    typed = f"python benches/peers/int8_cpu.py WORK --rounds {options.rounds}"
    body = envelope(typed, rounds=options.rounds, comparisons=done)
    print("\n".join(lines(body)))
    save(body, options.output)
    return int(any(each["left_out"] for each in done))


def encoders(work: Path, *, precision: str) -> Run:
    """Both encoders, one after the other, on the same image; gives the last block's tokens of SAM."""
    opened = Bundle.open(work / BUNDLE)
    feed = get_pipeline(opened.manifest).image_feed(inputs.image(), CANVAS, CANVAS)
    opened_sessions = sessions(opened, ENCODERS, precision, CANVAS)

    def run() -> Array:
        results = []
        for spec, session in opened_sessions:
            given = {tensor.name: session.upload(feed[tensor.name]) for tensor in spec.inputs}
            made = session.run(given)
            results.append(session.download(made[spec.outputs[-1].name]))
        return results[0]

    return run


def _sides(name: str, opens: str) -> tuple[Side, ...]:
    return tuple(
        Side(
            name=f"{name}/{precision}",
            title=f"edgeseg {precision}",
            opens=opens,
            included="the cpu form on onnxruntime, a thread for each core",
            needs=("benches.peers.made:int8",),
            packages=("onnxruntime", "numpy"),
            options={"precision": precision},
            ours=True,
        )
        for precision in _PRECISIONS
    )


COMPARISONS = (
    Comparison(
        name="chain",
        title="EBSeg-B, a 640x640 image to its label map, 20 classes, random weights",
        included="uint8 image in memory to label map in memory; the text embeddings are given; no file is read",
        sides=_sides("chain", "benches.peers.ungated:chain"),
    ),
    Comparison(
        name="encoders",
        title="its encoders, SAM ViT-B at 640x640 and both streams of CLIP ViT-B/16 at 320x320",
        included="normalised float images in memory to both graphs' results in memory, one graph after the other",
        sides=_sides("encoders", "benches.peers.int8_cpu:encoders"),
    ),
)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
