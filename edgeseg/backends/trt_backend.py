"""What the backends `tensorrt` and `tensorrt_rtx` share: the import, the devices, the opening of an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeseg.backends.base import Probe, Session, Stream
from edgeseg.backends.cuda import Devices
from edgeseg.backends.cuda.base import Cuda
from edgeseg.backends.keys import device_key, rebuild_command, target
from edgeseg.backends.trt_session import Sdk, TrtSession, make_log
from edgeseg.errors import BackendError
from edgeseg.schema import GraphSpec


class TrtBackend:
    """An SDK with TensorRT's execution surface; a subclass names and imports it. One per thread."""

    name: str
    key: str  # the SDK's name in a device key

    def __init__(self) -> None:
        self._devices = Devices()
        self._sdk: Sdk | None = None

    def import_sdk(self) -> Any:
        """The SDK's module; raises whatever its loader meets."""
        raise NotImplementedError

    def no_sdk(self, error: BackendError) -> Probe:
        """The probe of a machine without the SDK."""
        return Probe(False, None, f"{error.found}; {error.todo}")

    def no_device(self, trt: Any, reason: str, versions: dict[str, str]) -> Probe:
        """The probe of a machine with the SDK and without its device."""
        return Probe(False, None, f"{self.name} {trt.__version__} finds no device: {reason}", versions)

    def why_not(self, trt: Any, cuda: Cuda) -> str | None:
        """Why the SDK does not support the device; None if it does."""
        return None

    def probe(self, device: int = 0) -> Probe:
        """Look for the SDK and the device with this index; never raises, never compiles anything."""
        try:
            trt = self.sdk().trt
        except BackendError as error:
            return self.no_sdk(error)
        versions = {self.name: trt.__version__}
        try:
            cuda = self._devices.pool(device).cuda
        except BackendError as error:
            return self.no_device(trt, error.found, versions)
        versions["cuda driver"] = cuda.properties.driver
        reason = self.why_not(trt, cuda)
        if reason is not None:
            return self.no_device(trt, reason, versions)
        key = device_key([target(cuda.properties.capability)], self.key, trt.__version__)
        return Probe(True, key, f"{cuda.properties.name} through {cuda.layer}", versions, builds=True)

    def open(self, engine: Path, graph: GraphSpec, device: int = 0) -> Session:
        """Open an engine file whose digest has been checked. Raises BackendError."""
        pool = self._devices.pool(device)
        rebuild = rebuild_command(engine, self.name, graph.precision)
        return TrtSession(self.sdk(), engine, graph, pool, rebuild=rebuild)

    def streams(self, count: int, device: int = 0) -> list[Stream]:
        """`count` independent streams. Raises BackendError."""
        cuda = self._devices.pool(device).cuda
        with cuda.current():
            return [cuda.stream() for _ in range(count)]

    def sdk(self) -> Sdk:
        """The imported SDK. Raises BackendError."""
        if self._sdk is None:
            try:
                trt = self.import_sdk()
            # A broken installation raises whatever its loader meets: ImportError, OSError, AttributeError.
            except Exception as error:
                extra = self.name.removeprefix("tensorrt_")
                todo = f"pip install 'edgeseg[{extra}]'"
                raise BackendError(f"use {self.name}", f"import {self.name}: {error}", todo) from error
            self._sdk = Sdk(self.name, trt, make_log(trt))
        return self._sdk
