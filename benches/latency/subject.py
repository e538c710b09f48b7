"""What is measured: a bundle opened on this machine, with everything needed to watch it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeseg.backends.base import Backend, Probe, Session, Stream
from edgeseg.backends.cuda import open_device
from edgeseg.backends.cuda.base import Cuda
from edgeseg.bundle import Bundle
from edgeseg.errors import BackendError
from edgeseg.pipelines import get_pipeline
from edgeseg.schema import GraphSpec, Size
from edgeseg.segmenter import Segmenter
from edgeseg.selection import Plan, Request, choose

from ..identity import engines_sha256, shown_path
from ..machine import DeviceMemory, Machine, Nvml
from .measure import Place


class InOrder:
    """A backend whose graphs run one after the other, on one stream.

    Attributes:
        inner: the backend.
    """

    def __init__(self, backend: Backend) -> None:
        self.name, self.inner = backend.name, backend

    def probe(self, device: int = 0) -> Probe:
        """That of the backend."""
        return self.inner.probe(device)

    def open(self, engine: Path, graph: GraphSpec, device: int = 0) -> Session:
        """That of the backend."""
        return self.inner.open(engine, graph, device)

    def streams(self, count: int, device: int = 0) -> list[Stream]:
        """One, however many are asked for."""
        return self.inner.streams(1, device)


@dataclass(frozen=True)
class Subject:
    """An opened bundle and where it runs.

    Attributes:
        segmenter: opened and gated.
        place: see `Place`.
        probe: what the backend found.
    """

    segmenter: Segmenter
    place: Place
    probe: Probe

    @property
    def plan(self) -> Plan:
        """What runs the bundle."""
        return self.segmenter.plan

    def graphs(self, canvas: Size) -> list[GraphSpec]:
        """The graphs that run on a canvas, in the chain's order. Raises BundleError."""
        bundle, plan = self.segmenter.bundle, self.plan
        names = get_pipeline(bundle.manifest).graphs
        return [bundle.graph(name, plan.precision_of(name), canvas, plan.form) for name in names]

    def describe(self) -> dict[str, Any]:
        """Bundle, engines and SDK as plain JSON."""
        plan, manifest = self.plan, self.segmenter.bundle.manifest
        return {
            "bundle": shown_path(self.segmenter.bundle.path),
            "model": manifest.name,
            "engines_sha256": engines_sha256(self.segmenter),
            "backend": plan.backend.name,
            "device": plan.device_key,
            "precision": plan.precision,
            "device_name": self.probe.why,
            "sdk": self.probe.versions,
        }


@contextmanager
def opened(path: Path, request: Request, *, in_order: bool = False) -> Iterator[Subject]:
    """Open a bundle as `edgeseg.open` does, with the machine watched from before.

    Args:
        path: the bundle's folder.
        request: which backend, precision and device.
        in_order: graphs run one after the other even where they could overlap.

    Raises:
        BundleError, BackendError, GateError: as `edgeseg.open`.
    """
    bundle = Bundle.open(path)
    plan = choose(bundle, get_pipeline(bundle.manifest).graphs, request)
    place = _place(plan)
    probe = plan.backend.probe(plan.device)
    if in_order:
        plan = replace(plan, backend=InOrder(plan.backend))
    with Segmenter(bundle, plan) as segmenter:
        segmenter.gate()
        yield Subject(segmenter, place, probe)


def on_gpu(plan: Plan) -> bool:
    """Whether the engines run on a GPU."""
    return not plan.device_key.startswith(("cpu", "fake"))


def _place(plan: Plan) -> Place:
    if not on_gpu(plan):
        return Place(Machine())
    cuda = _cuda(plan.device)
    machine = Machine(Nvml.open(cuda.properties.pci if cuda else ""))
    return Place(machine, DeviceMemory(cuda) if cuda else None, True)


def _cuda(device: int) -> Cuda | None:
    """The device through cuda-python or pycuda; None without either, as with onnxruntime's own CUDA."""
    try:
        return open_device(device)
    except BackendError:
        return None
