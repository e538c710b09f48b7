"""The quantizers of `ptq.py`; each makes one file of `model.onnx` and the photos, in a process of its own.

    python -m benches.peers.quantizers NAME FOLDER

FOLDER holds `model.onnx` and `photos.npy` (N, 3, H, W) float32. The answer is a line of JSON: what quantizing took, the
peak memory of the process, versions. What the tool prints goes to stderr.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgeseg.environment import versions_of

from ..machine.memory import HostMemory
from .side import Array
from .worker import own_stdout

MODEL, PHOTOS = "model.onnx", "photos.npy"
PRODUCTS = ("MatMul", "Gemm", "Conv")
VERSIONS = ("onnxruntime", "onnx", "nvidia-modelopt")


def main(words: list[str]) -> None:
    """Quantize once."""
    answers = own_stdout()
    name, folder = words[0], Path(words[1])
    kind, _, detail = name.partition("-")
    start = time.perf_counter()
    {"edgeseg": _edgeseg, "ort": _onnxruntime, "modelopt": _modelopt}[kind](folder, name, detail)
    seconds = time.perf_counter() - start
    found = {"quantize_s": seconds, "peak_bytes": HostMemory().peak_bytes(), "versions": versions_of(VERSIONS)}
    answers.write(json.dumps(found) + "\n")
    answers.flush()


def graph_file(name: str) -> str:
    """What a quantizer writes."""
    return f"{name}.onnx"


def cpu_file(name: str) -> str:
    """What onnxruntime runs: of edgeseg the `cpu` form, of the others what they wrote."""
    return f"{name}.cpu.onnx" if name == "edgeseg" else graph_file(name)


def typed_file(name: str) -> str:
    """What TensorRT-RTX compiles: of edgeseg the typed form, of the others what they wrote."""
    return f"{name}.typed.onnx" if name == "edgeseg" else graph_file(name)


def _edgeseg(folder: Path, name: str, detail: str) -> None:
    import onnx

    from edgeseg.calibration import calibrate_graph, half_body, insert_qdq, prepare
    from edgeseg.engines.cpu_form import to_cpu_form

    model = prepare(onnx.load(folder / MODEL))
    ranges = calibrate_graph(model, _feeds(folder))
    plain = insert_qdq(model, ranges, "int8")
    onnx.save(plain, folder / graph_file(name))
    onnx.save(half_body(plain, ranges), folder / typed_file(name))
    to_cpu_form(plain)
    onnx.save(plain, folder / cpu_file(name))


def _onnxruntime(folder: Path, name: str, detail: str) -> None:
    """As its guide says for a CPU with VNNI, uint8 by int8; but for "defaults", products alone and per channel."""
    from onnxruntime import quantization as tool
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(tool.CalibrationDataReader):  # type: ignore[misc]  # the package has no types
        def __init__(self) -> None:
            self._feeds = _feeds(folder)

        def get_next(self) -> dict[str, Array] | None:
            return next(self._feeds, None)

    whole, _, method = detail.rpartition("-")
    methods = {each.name.lower(): each for each in tool.CalibrationMethod}
    prepared = folder / f"{name}.prepared.onnx"
    quant_pre_process(folder / MODEL, prepared, skip_symbolic_shape=True)
    tool.quantize_static(
        prepared,
        folder / graph_file(name),
        Reader(),
        op_types_to_quantize=None if whole else list(PRODUCTS),
        per_channel=not whole,
        activation_type=tool.QuantType.QUInt8,
        weight_type=tool.QuantType.QInt8,
        calibrate_method=methods[method],
    )


def _modelopt(folder: Path, name: str, detail: str) -> None:
    """Its defaults for int8, but for the fp16 that it would make of the rest, which a CPU does not have."""
    from modelopt.onnx.quantization import quantize

    source = shutil.copy(folder / MODEL, folder / f"{name}.source.onnx")  # it writes further files beside it
    quantize(
        str(source),
        quantize_mode="int8",
        calibration_data={"image": np.load(folder / PHOTOS)},
        calibration_method=detail,
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=str(folder / graph_file(name)),
    )


def _feeds(folder: Path) -> Iterator[dict[str, Array]]:
    photos = np.load(folder / PHOTOS, mmap_mode="r")
    return ({"image": np.ascontiguousarray(photo[None])} for photo in photos)


if __name__ == "__main__":
    main(sys.argv[1:])
