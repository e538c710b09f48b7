"""The roofline of a GPU, through the backend that runs the engines: a product and a copy as graphs of their own."""

from __future__ import annotations

import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from edgeseg.backends.base import Array, Backend, Session
from edgeseg.backends.trt_backend import TrtBackend
from edgeseg.backends.trt_compile import compile_model
from edgeseg.errors import BackendError
from edgeseg.schema import GraphSpec, TensorSpec
from edgeseg.selection import RUN_GRAPHS

from ..latency.spans import Spans
from .roofline import LEAST_TIMES, Roofline

SIDE = 8192
COPY_ELEMENTS = 2**26
_KINDS = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}
_TIMES = 20
_OPSET, _IR = 17, 8


@dataclass(frozen=True)
class Probe:
    """A graph of one node.

    Attributes:
        model: the ONNX file's bytes.
        spec: its tensors.
    """

    model: bytes
    spec: GraphSpec


def device_roofline(
    backend: Backend, device: int, dtype: str, *, side: int = SIDE, copy_elements: int = COPY_ELEMENTS
) -> Roofline:
    """Measure a device.

    Args:
        backend: runs both graphs.
        device: its index.
        dtype: "float32" or "float16", of the product.
        side: of the square matrices.
        copy_elements: float32 numbers that are read, negated and written.

    Raises:
        BackendError: the backend cannot make or run them.
    """
    product_ms = _fastest_ms(backend, device, product(side, dtype))
    copy_ms = _fastest_ms(backend, device, copy(copy_elements))
    copied = 2 * 4 * copy_elements
    how = f"{backend.name}: {dtype} product of {side}x{side} matrices; {copied / 2**20:.0f} MiB read and written"
    return Roofline(side**3 / product_ms * 1e3, copied / copy_ms * 1e3, dtype, None, how)


def product(side: int, dtype: str) -> Probe:
    """C = A B."""
    return _probe("MatMul", ("a", "b"), (side, side), dtype)


def copy(elements: int) -> Probe:
    """Y = -X: compilers drop an Identity."""
    return _probe("Neg", ("x",), (elements,), "float32")


def _probe(operator: str, inputs: tuple[str, ...], shape: tuple[int, ...], dtype: str) -> Probe:
    read = [helper.make_tensor_value_info(name, _KINDS[dtype], shape) for name in inputs]
    given = [helper.make_tensor_value_info("out", _KINDS[dtype], shape)]
    graph = helper.make_graph([helper.make_node(operator, list(inputs), ["out"])], operator, read, given)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    specs = tuple(TensorSpec(name, dtype, shape) for name in inputs)
    precision = "fp16" if dtype == "float16" else "fp32"
    spec = GraphSpec(operator, precision, None, f"{operator}.onnx", (), specs, (TensorSpec("out", dtype, shape),))
    return Probe(model.SerializeToString(), spec)


def _fastest_ms(backend: Backend, device: int, probe: Probe) -> float:
    with tempfile.TemporaryDirectory(prefix="edgeseg-") as folder, closing(_open(backend, device, probe, folder)) as it:
        stream = backend.streams(1, device)[0]
        random = np.random.Generator(np.random.PCG64(0))
        feed = {spec.name: it.upload(_random(random, spec)) for spec in probe.spec.inputs}
        spans = Spans()
        for _ in range(LEAST_TIMES + _TIMES):  # the first ones make the device's clock rise and are not counted
            with spans.step("run", stream):
                it.run(feed, stream)
            stream.synchronize()
        return min(span.ms for span in spans.drain()[LEAST_TIMES:])


def _random(random: np.random.Generator, spec: TensorSpec) -> Array:
    shape = [axis for axis in spec.shape if isinstance(axis, int)]
    numbers: Array = random.standard_normal(shape, np.float32).astype(spec.dtype)
    return numbers


def _open(backend: Backend, device: int, probe: Probe, folder: str) -> Session:
    path = Path(folder) / probe.spec.file
    if backend.name in RUN_GRAPHS:
        path.write_bytes(probe.model)
    elif isinstance(backend, TrtBackend):
        path.write_bytes(compile_model(backend.sdk(), probe.model))
    else:
        found = f"{backend.name} compiles no graph outside `edgeseg build`"
        raise BackendError("measure the device's roofline", found, "leave the roofline out: --count-only")
    return backend.open(path, probe.spec, device)
