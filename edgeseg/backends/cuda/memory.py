"""Tensors in device memory that never race and, once warm, never allocate.

Who may touch a block when, in four cases:

1. A tensor that is dropped gives its block back to the pool, at any moment, even while kernels still read it.
2. A block remembers the last event of every stream that used it. Its next owner's stream waits for all of them before
   it writes.
3. A tensor remembers the event after which its content is there. A stream that reads it waits for that event, unless it
   is the stream that wrote it.
4. A download waits for that event on a stream, and then for the stream on the host.

So an output stays valid as long as somebody holds its `DeviceTensor`, and no caller orders anything by hand.
"""

from __future__ import annotations

import weakref
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeseg.backends.base import Array
from edgeseg.backends.cuda.base import Bytes, Cuda, CudaEvent, CudaStream, OutOfMemoryError

_SMALL, _LARGE = 512, 2**20  # block sizes are rounded up to these, so that nearly equal tensors share blocks


def block_bytes(size_bytes: int) -> int:
    """The size of the block that holds `size_bytes`: a multiple of 512 bytes, above 1 MiB of 1 MiB; never 0."""
    step = _SMALL if size_bytes <= _LARGE else _LARGE
    return max(-(-size_bytes // step), 1) * step


def _free(cuda: Cuda, pointer: int) -> None:
    with cuda.current():
        cuda.free(pointer)


class Block:
    """Device memory, freed when nobody holds the block.

    Attributes:
        pointer: its address.
        uses: the last event of every stream that read or wrote it.
    """

    def __init__(self, cuda: Cuda, size_bytes: int) -> None:
        self.pointer = cuda.allocate(size_bytes)
        self.uses: dict[CudaStream, CudaEvent] = {}
        weakref.finalize(self, _free, cuda, self.pointer).atexit = False  # at exit the driver does it


class DeviceTensor:
    """An array in device memory, row-major; its block goes back to the pool when it is dropped.

    Attributes:
        shape: complete.
        dtype: a numpy dtype.
    """

    def __init__(self, block: Block, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self.shape = tuple(shape)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self._block = block
        self._written: tuple[CudaStream, CudaEvent] | None = None

    @property
    def pointer(self) -> int:
        """The device address of its first element."""
        return self._block.pointer

    @property
    def size_bytes(self) -> int:
        """Bytes of its elements."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def readable_on(self, stream: CudaStream) -> None:
        """Make `stream` wait until the content is there."""
        if self._written is not None and self._written[0] is not stream:
            stream.wait(self._written[1])

    def was_read(self, stream: CudaStream, event: CudaEvent) -> None:
        """Say that `stream` reads it until `event`."""
        self._block.uses[stream] = event

    def was_written(self, stream: CudaStream, event: CudaEvent) -> None:
        """Say that `stream` writes it until `event`; what used the block before has been waited for."""
        self._written = (stream, event)
        self._block.uses = {stream: event}


class Pool:
    """The memory of one device: tensors from recycled blocks, and copies through recycled pinned host memory.

    Not thread-safe, like the sessions it serves, except that a tensor may be dropped in any thread.

    Args:
        cuda: the opened device.
    """

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        self._blocks: defaultdict[int, deque[Block]] = defaultdict(deque)
        self._staging: defaultdict[int, deque[tuple[Bytes, CudaEvent]]] = defaultdict(deque)
        self._stream: CudaStream | None = None

    @property
    def stream(self) -> CudaStream:
        """The stream for everything that names none."""
        if self._stream is None:
            with self.cuda.current():
                self._stream = self.cuda.stream()
        return self._stream

    def tensor(self, shape: tuple[int, ...], dtype: npt.DTypeLike, stream: CudaStream) -> DeviceTensor:
        """An uninitialised tensor that `stream` may write. Raises OutOfMemoryError."""
        size_bytes = block_bytes(int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize)
        block = self._take(size_bytes)
        for user, event in block.uses.items():
            if user is not stream:
                stream.wait(event)
        tensor = DeviceTensor(block, shape, dtype)
        weakref.finalize(tensor, self._blocks[size_bytes].append, block).atexit = False
        return tensor

    def upload(self, array: Array, stream: CudaStream) -> DeviceTensor:
        """A copy of `array` on the device, enqueued on `stream`; the caller may change the array at once."""
        source = np.asarray(array)
        tensor = self.tensor(source.shape, source.dtype, stream)
        if source.nbytes:
            staging = self._take_staging(block_bytes(source.nbytes))
            staging[: source.nbytes] = source.reshape(-1).view(np.uint8)
            stream.copy_in(tensor.pointer, staging[: source.nbytes])
            self._copied([], [tensor], stream, staging)
        return tensor

    def download(self, tensor: DeviceTensor, stream: CudaStream) -> Array:
        """The tensor's content as an array of its own, once `stream` has copied it; waits."""
        result: Array = np.empty(tensor.shape, tensor.dtype)
        if result.nbytes:
            tensor.readable_on(stream)
            staging = self._take_staging(block_bytes(result.nbytes))
            stream.copy_out(staging[: result.nbytes], tensor.pointer)
            self._copied([tensor], [], stream, staging).synchronize()
            result.reshape(-1).view(np.uint8)[:] = staging[: result.nbytes]
        return result

    def used(self, reads: Iterable[DeviceTensor], writes: Iterable[DeviceTensor], stream: CudaStream) -> CudaEvent:
        """Say that work just enqueued on `stream` reads and writes these; the event that follows it."""
        event = stream.record()
        for tensor in reads:
            tensor.was_read(stream, event)
        for tensor in writes:
            tensor.was_written(stream, event)
        return event

    def trim(self) -> None:
        """Free every block and pinned buffer that no tensor holds."""
        for blocks in list(self._blocks.values()):
            blocks.clear()
        for buffers in self._staging.values():
            for _, event in buffers:
                event.synchronize()
            buffers.clear()

    def _copied(
        self, reads: list[DeviceTensor], writes: list[DeviceTensor], stream: CudaStream, staging: Bytes
    ) -> CudaEvent:
        event = self.used(reads, writes, stream)
        self._staging[staging.nbytes].append((staging, event))
        return event

    def _take(self, size_bytes: int) -> Block:
        try:
            return self._blocks[size_bytes].pop()
        except IndexError:
            pass  # none of this size is free: a new one
        try:
            return Block(self.cuda, size_bytes)
        except OutOfMemoryError:
            self.trim()
            return Block(self.cuda, size_bytes)

    def _take_staging(self, size_bytes: int) -> Bytes:
        if not self._staging[size_bytes]:
            return self.cuda.pinned(size_bytes)
        buffer, event = self._staging[size_bytes].popleft()
        event.synchronize()
        return buffer
