"""A bundle of a few bytes for tests: its "graphs" are texts, since nothing here runs them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.bundle import Bundle, BundleEdit
from edgeseg.schema import SCHEMA, EngineSpec, Gate, GraphSpec, ImageTransform, Manifest, Source, TensorSpec, size_text

CANVASES = ((64, 64), (64, 96))
RTX = "sm89-rtx1.7.1"


def manifest(**changes: Any) -> Manifest:
    """The manifest of an empty bundle."""
    base = Manifest(
        schema=SCHEMA,
        edgeseg="0.1.0",
        family="ebseg",
        name="ebseg-b",
        source=Source("small.pth", "ab" * 32, licence="Apache-2.0"),
        recipe={"divisor": 32},
        images={"image_sam": ImageTransform((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))},
        canvases=CANVASES,
    )
    return replace(base, **changes)


def graph(name: str = "sam", precision: str = "fp32", canvas: tuple[int, int] | None = (64, 64)) -> GraphSpec:
    shape: tuple[int | str, ...] = ("N", 3) if canvas is None else (1, 3, *canvas)
    return GraphSpec(
        name=name,
        precision=precision,
        canvas=canvas,
        file=f"graphs/{precision}/{name}-{size_text(canvas)}.onnx",
        data=(f"graphs/{precision}/{name}.bin",),
        inputs=(TensorSpec("image_sam", "float32", shape),),
        outputs=(TensorSpec(f"{name}_out", "float32", shape),),
        axes={"N": (1, 64, 256)} if canvas is None else {},
        parameters=7,
    )


def engine(spec: GraphSpec, source_sha256: str = "cd" * 32, gate: Gate | None = None, device: str = RTX) -> EngineSpec:
    folder = f"engines/tensorrt_rtx-{device}/{spec.precision}"
    return EngineSpec(
        backend="tensorrt_rtx",
        device=device,
        graph=spec.name,
        precision=spec.precision,
        canvas=spec.canvas,
        file=f"{folder}/{spec.name}-{size_text(spec.canvas)}.engine",
        data=(),
        source_sha256=source_sha256,
        versions={"tensorrt_rtx": "1.7.1"},
        gate=gate,
    )


def add_graph(edit: BundleEdit, spec: GraphSpec, content: str = "") -> None:
    for path in (spec.file, *spec.data):
        edit.stage(path).write_text(f"{path} {content}")
    edit.add_graph(spec)


def add_engine(edit: BundleEdit, spec: EngineSpec, content: str = "engine") -> None:
    edit.stage(spec.file).write_text(content)
    edit.add_engine(spec)


def make(path: Path) -> Bundle:
    """Two canvases of sam in fp32 and fp16, a text encoder in fp32, a tokenizer, and reference tensors."""
    with Bundle.create(path, manifest()) as edit:
        for precision in ("fp32", "fp16"):
            for canvas in CANVASES:
                add_graph(edit, graph("sam", precision, canvas))
        add_graph(edit, graph("text", "fp32", None))
        edit.stage("tokenizer.json").write_text("{}")
        for key, name in (
            ("64x64", "reference/64x64-0.npz"),
            ("64x96", "reference/64x96-0.npz"),
            ("text", "reference/text-0.npz"),
        ):
            np.savez(edit.stage(name), labels=np.arange(6, dtype=np.uint16).reshape(2, 3))
            edit.add_reference(key, name)
    return Bundle.open(path)


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the JSON of a bundle behind its back."""
    value = json.loads((path / "bundle.json").read_text())
    change(value)
    (path / "bundle.json").write_text(json.dumps(value))


def tree(folder: Path) -> dict[str, bytes]:
    """Every file under a folder with its content, but the lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
