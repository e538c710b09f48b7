"""The nouns of `bundle.json`, as frozen dataclasses with strict JSON on both sides.

Imports nothing but the standard library and `edgeseg.errors`. A bundle comes from disk and may be hostile, so
`from_json` accepts exactly the documented keys and types and refuses the rest with a `BundleError`.

Schema history (`docs/bundle.md` has the format in full):
    1   first published format
"""

from __future__ import annotations

import dataclasses
import functools
import re
import types
import typing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from edgeseg.errors import BundleError

SCHEMA = 1
DTYPES = ("float32", "float16", "int32", "int64", "uint8", "bool")
PRECISIONS = ("fp32", "fp16", "int8", "fp8", "mixed")
FORMS = ("typed", "plain")

Size = tuple[int, int]  # always (height, width)
T = TypeVar("T")


def size_text(size: Size | None) -> str:
    """`(640, 864)` as "640x864"; None, a graph that fits any canvas, as "any"."""
    return "any" if size is None else f"{size[0]}x{size[1]}"


def parse_size(text: str) -> Size:
    """The text "640x864" as `(640, 864)`, that is (height, width). Raises ValueError for anything else."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not match:
        raise ValueError(f"{text!r} is not HEIGHTxWIDTH")
    return int(match[1]), int(match[2])


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph: its name, one of `DTYPES`, and its axes; a str names a dynamic axis."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class GraphSpec:
    """One ONNX file of the bundle.

    Attributes:
        name: what it is to the chain ("sam", "head"); one graph exists per precision, canvas and form.
        precision: one of `PRECISIONS`.
        canvas: the (H, W) of the image it is made for; None if it fits any.
        file: path inside the bundle, posix.
        data: paths of the external weight files it refers to, inside the bundle; shared between canvases.
        inputs, outputs: the tensors; two graphs are wired by giving a tensor the same name.
        axes: for each dynamic axis its (smallest, usual, largest) extent.
        parameters: number of weights.
        form: one of `FORMS`; "typed": every tensor has the type it is computed in (TensorRT from 10 on, TensorRT-RTX);
            "plain": opset 17, fp32 around the integer products (onnxruntime's CPU, TensorRT 8.6). Only int8 has both,
            and mixed made of int8.
    """

    name: str
    precision: str
    canvas: Size | None
    file: str
    data: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    axes: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    parameters: int = 0
    form: str = "typed"


@dataclass(frozen=True)
class FileSpec:
    """A file's digest (sha256, 64 hex digits) and length."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Gate:
    """What an engine made of the reference tensors on the device that ran it.

    Attributes:
        passed: every threshold held.
        cosine: the worst cosine of any output of the graph against torch.
        agreement: share of pixels, 0 to 1, whose label equals torch's; None for a graph by itself.
    """

    passed: bool
    cosine: float
    agreement: float | None = None


@dataclass(frozen=True)
class EngineSpec:
    """One engine: a graph compiled (or prepared) for one backend and device.

    Attributes:
        backend: "onnxruntime", "tensorrt", "tensorrt_rtx" or "fake".
        device: the device key ("cpu-x86_64", "sm87-trt10.3.0", "sm89-rtx1.7.1").
        graph, precision, canvas: the `GraphSpec` it was made from.
        file: path inside the bundle; `data`: further files it needs.
        source_sha256: digest of the graph file it was made from; an engine of another graph is refused.
        versions: what made it, {"tensorrt": "10.3.0"}.
        gate: None while it has never run on its device.
        layers: what the compiler made of it: kind ("gemm", "conv", "attention", "matmul") → precision ("int8", "fp16",
            "unknown") → how many; empty if it does not say.
        report: path of the report that says why it is not what its graph asks for; None if it is.
    """

    backend: str
    device: str
    graph: str
    precision: str
    canvas: Size | None
    file: str
    data: tuple[str, ...]
    source_sha256: str
    versions: dict[str, str] = field(default_factory=dict)
    gate: Gate | None = None
    layers: dict[str, dict[str, int]] = field(default_factory=dict)
    report: str | None = None


@dataclass(frozen=True)
class Selection:
    """The precision of each graph that was measured to be best on one device; graphs of a chain may differ.

    Attributes:
        backend, device: as in `EngineSpec`; one selection exists per pair.
        precisions: graph → one of `PRECISIONS`.
        canvases: those for which the chain passed its gate.
        gate: of the whole chain, the worst canvas.
        engines: path of each engine that the gate ran → its sha256; with any other engine the selection is void.
        report: path of the report with the measurements and the reasons.
    """

    backend: str
    device: str
    precisions: dict[str, str]
    canvases: tuple[Size, ...]
    gate: Gate
    engines: dict[str, str]
    report: str


@dataclass(frozen=True)
class ImageTransform:
    """How an RGB image becomes one network input: `(x - mean) / std` on 0..255, zero padding, then bilinear `scale`.

    Attributes:
        mean, std: per channel R, G, B, in 0..255 units.
        scale: bilinear resize of the padded, normalised canvas (1.0 leaves it; EBSeg's CLIP input: 0.5 or 0.7).
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    scale: float = 1.0


@dataclass(frozen=True)
class Source:
    """Where the weights came from: the checkpoint's name and digest, the hub's commit if downloaded, licence notes."""

    checkpoint: str
    sha256: str
    hub: str | None = None
    licence: str = "unknown"


@dataclass(frozen=True)
class Manifest:
    """All of `bundle.json`.

    Attributes:
        family: names the pipeline ("ebseg"). `name`: the preset or variant ("ebseg-b").
        recipe: the resolved recipe, plain JSON; the family's pipeline reads it.
        images: network input name → its `ImageTransform`.
        canvases: every (H, W) that the graphs exist for.
        reference: paths of the reference tensors, by canvas text ("640x640") and "text" for the text encoder.
        selections: what `edgeseg build --precision auto` chose.
        files: digest of every file of the bundle but `bundle.json`, by path.
    """

    schema: int
    edgeseg: str
    family: str
    name: str
    source: Source
    recipe: dict[str, Any]
    images: dict[str, ImageTransform]
    canvases: tuple[Size, ...]
    graphs: tuple[GraphSpec, ...] = ()
    engines: tuple[EngineSpec, ...] = ()
    reference: dict[str, tuple[str, ...]] = field(default_factory=dict)
    selections: tuple[Selection, ...] = ()
    files: dict[str, FileSpec] = field(default_factory=dict)


def to_json(value: Any) -> Any:
    """A dataclass of this module as plain JSON values."""
    if dataclasses.is_dataclass(value):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


def from_json(kind: type[T], value: Any, where: str = "bundle.json") -> T:
    """Plain JSON as a dataclass of this module; a `BundleError` names the first key that does not fit."""
    return typing.cast(T, _parse(kind, value, where))


def _refuse(where: str, found: str) -> BundleError:
    """An error whose length is bounded: a hostile key can be as long as the file."""
    return BundleError(f"read {_short(where)}", _short(found), "make the bundle again, or get an undamaged copy")


def _short(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:150]} ... {text[-150:]}"


def _parse(kind: Any, value: Any, where: str) -> Any:
    if kind is Any or type(value) is kind:  # most values are plain: what typing has to say of them takes longer
        return value
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _parse_union(args, value, where)
    if origin is tuple:
        return _parse_tuple(args, value, where)
    if origin is dict:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise _refuse(where, f"it is {type(value).__name__}, not an object")
        return {key: _parse(args[1], item, f"{where}: {key}") for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return _parse_dataclass(kind, value, where)
    if kind is float and type(value) is int:
        return float(value)
    raise _refuse(where, f"it is {type(value).__name__}, not {kind.__name__}")


def _parse_union(args: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in args:
        return None
    options = [arg for arg in args if arg is not type(None)]
    for option in options[:-1]:
        try:
            return _parse(option, value, where)
        except BundleError:
            continue
    return _parse(options[-1], value, where)


def _parse_tuple(args: tuple[Any, ...], value: Any, where: str) -> Any:
    if not isinstance(value, list):
        raise _refuse(where, f"it is {type(value).__name__}, not a list")
    kinds = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
    if len(kinds) != len(value):
        raise _refuse(where, f"it has {len(value)} items, not {len(kinds)}")
    return tuple(_parse(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True)))


def _parse_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _refuse(where, f"it is {type(value).__name__}, not an object")
    kinds, required = _keys(kind)
    unknown, missing = value.keys() - kinds.keys(), required - value.keys()
    if unknown or missing:
        raise _refuse(where, f"unknown keys {sorted(unknown)}, missing keys {sorted(missing)}")
    return kind(**{key: _parse(kinds[key], item, f"{where}: {key}") for key, item in value.items()})


@functools.cache
def _keys(kind: Any) -> tuple[dict[str, Any], frozenset[str]]:
    """The type of each key of a dataclass, and the keys that must be there; looking them up compiles annotations."""
    hints, fields = typing.get_type_hints(kind), dataclasses.fields(kind)
    needed = (f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING)
    return {f.name: hints[f.name] for f in fields}, frozenset(needed)
