"""The bundle's graphs as onnxruntime runs what `edgeseg build` makes of them, but without the gate of `edgeseg build`.

Noise as weights fails that gate: in int8, and at SAM's size in fp32 too, since its head multiplies any rounding by
hundreds. The form of the graphs, and so their cost, is that of engines that pass.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgeseg.backends import get_backend
from edgeseg.backends.base import Session
from edgeseg.bundle import Bundle
from edgeseg.chain import Chain, Link
from edgeseg.pipelines import get_pipeline
from edgeseg.placement import Placement
from edgeseg.schema import GraphSpec, Size

from . import inputs, sam
from .made import BUNDLE
from .side import Array, Run


def chain(work: Path, *, precision: str) -> Run:
    """Image in memory to label map in memory, as `edgeseg.open(...)(image)` does it."""
    opened, canvas = Bundle.open(work / BUNDLE), (inputs.EBSEG_SIZE, inputs.EBSEG_SIZE)
    pipeline = get_pipeline(opened.manifest)
    networks = Chain([Link(*each) for each in sessions(opened, pipeline.graphs, precision, canvas)])
    image, text = inputs.image(), pipeline.vocabulary_feed(inputs.embeddings(), inputs.overlap())

    def run() -> Array:
        done = networks.run(pipeline.image_feed(image, canvas, canvas) | text, pipeline.wanted)
        return pipeline.evidence(done.tensors, (), Placement(canvas, canvas, canvas, True, None)).compose().labels

    return run


def sam_encoder(work: Path, *, precision: str) -> Run:
    """The `sam` graph at SAM's own size, as `sam.ours` runs it."""
    ((_, session),) = sessions(Bundle.open(work / BUNDLE), ["sam"], precision, sam.CANVAS)
    return sam.session_run(session, "image_sam", sam.LAST)


def sessions(opened: Bundle, names: Sequence[str], precision: str, canvas: Size) -> list[tuple[GraphSpec, Session]]:
    """Graphs and what runs them, with a thread for each core."""
    specs = [opened.graph(name, precision, canvas, "plain") for name in names]
    return [(spec, _session(opened, spec)) for spec in specs]


def _session(opened: Bundle, spec: GraphSpec) -> Session:
    backend = get_backend("onnxruntime", inputs.threads())
    with _cpu_form(opened, spec) as file:
        return backend.open(file, spec)


@contextmanager
def _cpu_form(opened: Bundle, spec: GraphSpec) -> Iterator[Path]:
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
