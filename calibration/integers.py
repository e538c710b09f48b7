"""Symmetric rounding to eight bits: activations with one scale, weights with one per output channel.

Every scale is a number that fp16 holds exactly, so that a graph with an fp16 body and one with an fp32 body use the
same scales and the same integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from edgeseg.errors import BuildError

Float32 = npt.NDArray[np.float32]
Stored = npt.NDArray[Any]

_SMALLEST = 2.0**-20  # a smaller scale would have too few bits left in fp16


@dataclass(frozen=True)
class Kind:
    """A type of eight bits.

    Attributes:
        name: in names of tensors. `largest`: what the largest magnitude becomes. `type`: of ONNX.
    """

    name: str
    largest: float
    type: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of numpy. Raises BuildError if the installed onnx knows none of eight bits for it."""
        dtype = onnx.helper.tensor_dtype_to_np_dtype(self.type)
        if dtype.itemsize != 1:
            found = f"onnx {onnx.__version__} is too old for it"
            raise BuildError(f"quantize to {self.name}", found, 'pip install "onnx>=1.19"')
        return dtype

    def stored(self, values: Float32, scale: Float32, axis: int | None = None) -> Stored:
        """Values as QuantizeLinear makes them; the scale is () or, along `axis`, (N,)."""
        steps = np.clip(values / _along(scale, axis, values.ndim), -self.largest, self.largest)
        whole: Float32 = np.rint(steps) if self.type == TensorProto.INT8 else steps
        return whole.astype(self.dtype)

    def rounded(self, values: Float32, scale: Float32, axis: int | None = None) -> Float32:
        """Values after quantization and back."""
        back: Float32 = self.stored(values, scale, axis).astype(np.float32) * _along(scale, axis, values.ndim)
        return back

    def scale(self, limit: float) -> Float32:
        """The scale () of activations in the range -limit to limit."""
        return half_scale(np.asarray(limit / self.largest, np.float64))

    def weight_scale(self, weight: Float32, axis: int) -> Float32:
        """The scale (N,) of each output channel; `axis` is theirs."""
        others = tuple(index for index in range(weight.ndim) if index != axis)
        return half_scale(np.abs(weight).max(axis=others).astype(np.float64) / self.largest)


INT8 = Kind("int8", 127, TensorProto.INT8)
FP8 = Kind("fp8", 448, TensorProto.FLOAT8E4M3FN)
KINDS = {kind.name: kind for kind in (INT8, FP8)}


def half_scale(scale: npt.NDArray[np.float64]) -> Float32:
    """Scales rounded up to numbers that fp16 holds."""
    wanted = np.maximum(np.asarray(scale, np.float64), _SMALLEST)
    half = wanted.astype(np.float16)
    half = np.where(half < wanted, np.nextafter(half, np.float16(np.inf)), half)
    return half.astype(np.float32)


def _along(scale: Float32, axis: int | None, axes: int) -> Float32:
    return scale if axis is None else scale.reshape([-1 if index == axis else 1 for index in range(axes)])
