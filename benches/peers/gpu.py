"""On an NVIDIA GPU: the plain export as `trtexec --fp16` would build it, and this project's engine of the same encoder.

Both run through one session class, `edgeseg.backends`, so that the engines are all that differs.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from edgeseg.backends import get_backend
from edgeseg.backends.base import Backend, Probe
from edgeseg.bundle import Bundle
from edgeseg.schema import GraphSpec, TensorSpec

from . import made, sam
from .inputs import SAM_SIZE
from .side import AbsentError, Run

SDKS = ("tensorrt", "tensorrt_rtx")
GRAPH = GraphSpec(
    name="sam",
    precision="fp16",
    canvas=(SAM_SIZE, SAM_SIZE),
    file=made.PLAIN,
    data=(),
    inputs=(TensorSpec("image", "float32", (1, 3, SAM_SIZE, SAM_SIZE)),),
    outputs=(TensorSpec("features", "float32", (1, 768, SAM_SIZE // 16, SAM_SIZE // 16)),),
)


def check(work: Path) -> None:
    """Nothing, on a machine with a GPU and a TensorRT. Raises AbsentError elsewhere."""
    working()


def working() -> tuple[Backend, Probe]:
    """The first TensorRT that works here. Raises AbsentError."""
    reasons = []
    for name in SDKS:
        backend = get_backend(name)
        probe = backend.probe()
        if probe.works:
            return backend, probe
        reasons.append(probe.why)
    raise AbsentError(f"no GPU: {'; '.join(reasons)}")


def fp16_engines(work: Path) -> None:
    """The bundle's fp16 graphs, and the engines of SAM's canvas for this GPU, which are not gated: see `ungated`."""
    from edgeseg.engines.builder import make_engines
    from edgeseg.engines.choice import choose
    from edgeseg.engines.request import Request

    backend, _ = working()
    made.bundle(work)
    path = work / made.BUNDLE
    if "fp16" not in Bundle.open(path).precisions():
        made.command(["-m", "edgeseg", "quantize", str(path), "--precision", "fp16"])
    make_engines(path, choose(backend.name, ()), Request("fp16", ((SAM_SIZE, SAM_SIZE),)), shown=False)


def plain_engine(work: Path) -> None:
    """The plain export through this machine's TensorRT."""
    backend, probe = working()
    engine = _engine(work, probe)
    if not engine.exists():
        trt = importlib.import_module(backend.name)
        source = made.PLAIN if has_fp16_flag(trt) else made.PLAIN_HALF
        (made.plain if has_fp16_flag(trt) else made.plain_half)(work)
        with made.whole(engine) as folder:
            (folder / engine.name).write_bytes(build(trt, work / source))


def has_fp16_flag(trt: Any) -> bool:
    """Whether fp16 is the builder's to allow (TensorRT up to 10), and not the graph's to say (TensorRT 11, RTX)."""
    return hasattr(trt.BuilderFlag, "FP16")


def build(trt: Any, onnx_file: Path) -> bytes:
    """What `trtexec --onnx=FILE --fp16` does, or `--stronglyTyped` where there is no such flag, and no other option.

    Raises:
        AbsentError: the parser or the builder refuses the file.
    """
    flagged, kinds = has_fp16_flag(trt), trt.NetworkDefinitionCreationFlag
    wanted = ("EXPLICIT_BATCH",) if flagged else ("EXPLICIT_BATCH", "STRONGLY_TYPED")
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(sum(1 << int(getattr(kinds, name)) for name in wanted if hasattr(kinds, name)))
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    if not parser.parse_from_file(str(onnx_file)):
        raise AbsentError(f"{trt.__name__} {trt.__version__} cannot parse it: {parser.get_error(0).desc()}")
    config = builder.create_builder_config()
    if flagged:
        config.set_flag(trt.BuilderFlag.FP16)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise AbsentError(f"{trt.__name__} {trt.__version__} cannot build it; the log says why")
    return bytes(engine)


def plain(work: Path) -> Run:
    """The engine of the plain export."""
    backend, probe = working()
    return sam.session_run(backend.open(_engine(work, probe), GRAPH), "image", "features")


def ours(work: Path) -> Run:
    """The bundle's fp16 engine."""
    backend, _ = working()
    return sam.ours(work, precision="fp16", backend=backend.name)


def _engine(work: Path, probe: Probe) -> Path:
    return work / f"sam-plain-{probe.device}.engine"
