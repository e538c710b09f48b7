"""INT8 against FP32 on onnxruntime's CPU: EBSeg-B at 640x640, the whole chain and the two encoders alone.

    python benches/peers/int8_cpu.py WORK [--rounds 5] [-o results.json]

Both run the graphs in the `cpu` form that `edgeseg build` derives, opened as the runtime opens them, in processes that
take turns. Random weights: they change no cost, but the gate of `edgeseg build` refuses them, so it is left out here.
WORK holds the checkpoint and the bundle, made at the first call. "time" and "memory" are fp32's by int8's.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


from benches.peers import inputs
from benches.peers.made import BUNDLE, bundle, command
from benches.peers.result import summarise
from benches.peers.run import say
from benches.peers.side import Array, Comparison, Run, Side
from benches.peers.table import lines
from benches.peers.turns import take_turns
from edgeseg.backends import get_backend
from edgeseg.backends.base import Session
from edgeseg.bundle import Bundle
from edgeseg.chain import Chain, Link
from edgeseg.environment import envelope
from edgeseg.pipelines import get_pipeline
from edgeseg.placement import Placement
from edgeseg.schema import GraphSpec

CANVAS = (inputs.EBSEG_SIZE, inputs.EBSEG_SIZE)
ENCODERS = ("sam", "clip_trunk")
_HERE, _OPTIONS = "benches.peers.int8_cpu", ("int8", "fp32")


def main(words: list[str]) -> int:
    """Measure, print the table, write the JSON; 1 if a side failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--rounds", type=int, default=5, help="counted runs of every side (5)")
    parser.add_argument("-o", "--output", type=Path, help="write the result there, as JSON")
    options = parser.parse_args(words)
    work = options.work.resolve()
    done = [summarise(each, take_turns(work, each.sides, options.rounds, say), work) for each in COMPARISONS]
    typed = f"python benches/peers/int8_cpu.py WORK --rounds {options.rounds}"
    body = envelope(typed, rounds=options.rounds, comparisons=done)
    print("\n".join(lines(body)))
    if options.output:
        options.output.write_text(json.dumps(body, indent=1) + "\n")
    return int(any(each["left_out"] for each in done))


def int8(work: Path) -> None:
    """The bundle's int8 graphs, calibrated on its own reference inputs: noise goes with noise."""
    bundle(work)
    if "int8" not in Bundle.open(work / BUNDLE).precisions():
        command(["-m", "edgeseg", "quantize", str(work / BUNDLE), "--precision", "int8"])


def chain(work: Path, *, precision: str) -> Run:
    """Image in memory to label map in memory, as `edgeseg.open(...)(image)` does it."""
    opened = Bundle.open(work / BUNDLE)
    pipeline = get_pipeline(opened.manifest)
    networks = Chain([Link(spec, _session(opened, spec)) for spec in _graphs(opened, pipeline.graphs, precision)])
    image, text = inputs.image(), pipeline.vocabulary_feed(inputs.embeddings(), inputs.overlap())

    def run() -> Array:
        done = networks.run(pipeline.image_feed(image, CANVAS, CANVAS) | text, pipeline.wanted)
        return pipeline.evidence(done.tensors, (), Placement(CANVAS, CANVAS, CANVAS, True, None)).compose().labels

    return run


def encoders(work: Path, *, precision: str) -> Run:
    """Both encoders, one after the other, on the same image; gives the last block's tokens of SAM."""
    opened = Bundle.open(work / BUNDLE)
    feed = get_pipeline(opened.manifest).image_feed(inputs.image(), CANVAS, CANVAS)
    sessions = [(spec, _session(opened, spec)) for spec in _graphs(opened, ENCODERS, precision)]

    def run() -> Array:
        results = []
        for spec, session in sessions:
            given = {tensor.name: session.upload(feed[tensor.name]) for tensor in spec.inputs}
            made = session.run(given)
            results.append(session.download(made[spec.outputs[-1].name]))
        return results[0]

    return run


def _graphs(opened: Bundle, names: tuple[str, ...], precision: str) -> list[GraphSpec]:
    return [opened.graph(name, precision, CANVAS, "plain") for name in names]


def _session(opened: Bundle, spec: GraphSpec) -> Session:
    backend = get_backend("onnxruntime", inputs.threads())
    with cpu_form(opened, spec) as file:
        return backend.open(file, spec)


@contextmanager
def cpu_form(opened: Bundle, spec: GraphSpec) -> Iterator[Path]:
    """The `cpu` form of a graph as a file beside its weights, which are read when a session opens it."""
    import onnx

    from edgeseg.calibration.tap import beside
    from edgeseg.engines.cpu_form import to_cpu_form

    model = onnx.load(opened.graph_files(spec), load_external_data=False)
    to_cpu_form(model)
    with tempfile.TemporaryDirectory(dir=opened.path.parent) as folder:
        for name in spec.data:
            beside(opened.file(name), Path(folder))
        file = Path(folder) / "graph.onnx"
        file.write_bytes(model.SerializeToString())
        yield file


def _sides(name: str, opens: str) -> tuple[Side, ...]:
    needs = (f"{_HERE}:int8",)
    return tuple(
        Side(
            name=f"{name}/{precision}",
            title=f"edgeseg {precision}",
            opens=f"{_HERE}:{opens}",
            included="the cpu form on onnxruntime, a thread for each core",
            needs=needs,
            packages=("onnxruntime", "numpy"),
            options={"precision": precision},
            ours=True,
        )
        for precision in _OPTIONS
    )


COMPARISONS = (
    Comparison(
        name="chain",
        title="EBSeg-B, a 640x640 image to its label map, 20 classes, random weights",
        included="uint8 image in memory to label map in memory; the text embeddings are given; no file is read",
        sides=_sides("chain", "chain"),
    ),
    Comparison(
        name="encoders",
        title="its encoders, SAM ViT-B at 640x640 and both streams of CLIP ViT-B/16 at 320x320",
        included="normalised float images in memory to both graphs' results in memory, one graph after the other",
        sides=_sides("encoders", "encoders"),
    ),
)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
