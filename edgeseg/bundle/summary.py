"""What a bundle holds, as plain JSON: the body of `edgeseg inspect --json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeseg.bundle.bundle import Bundle
from edgeseg.bundle.check import made_of
from edgeseg.schema import EngineSpec, GraphSpec, Manifest, Selection, size_text, to_json


def summary(bundle: Bundle) -> dict[str, Any]:
    """Everything but the recipe and the digests; `docs/json.md` has the keys. Reads no file but `bundle.json`."""
    manifest = bundle.manifest
    return {
        "path": str(bundle.path),
        "format": manifest.schema,
        "written_by": manifest.edgeseg,
        "family": manifest.family,
        "name": manifest.name,
        "source": to_json(manifest.source),
        "canvases": [size_text(canvas) for canvas in manifest.canvases],
        "precisions": list(bundle.precisions()),
        "graphs": [_graph(graph, manifest) for graph in manifest.graphs],
        "engines": [_engine(engine, manifest) for engine in manifest.engines],
        "selections": [_selection(selection) for selection in manifest.selections],
        "files": len(manifest.files),
        "size_bytes": bundle.size_bytes,
    }


def gate_state(engine: EngineSpec) -> str:
    """The word for an engine's gate: "passed", "failed", or "ungated" while it has not run on its device."""
    if engine.gate is None:
        return "ungated"
    return "passed" if engine.gate.passed else "failed"


def _graph(graph: GraphSpec, manifest: Manifest) -> dict[str, Any]:
    return {
        "name": graph.name,
        "precision": graph.precision,
        "canvas": size_text(graph.canvas),
        "form": graph.form,
        "packed_away": graph.file not in manifest.files,
        "size_bytes": _size(manifest, graph.file),
        "weights": list(graph.data),
        "weights_bytes": sum(_size(manifest, path) for path in graph.data),
        "parameters": graph.parameters,
        "inputs": to_json(graph.inputs),
        "outputs": to_json(graph.outputs),
        "axes": to_json(graph.axes),
    }


def _engine(engine: EngineSpec, manifest: Manifest) -> dict[str, Any]:
    made_from = [graph.file for graph in manifest.graphs if made_of(graph) == made_of(engine)]
    sources = {manifest.files[file].sha256 for file in made_from if file in manifest.files}
    return {
        "backend": engine.backend,
        "device": engine.device,
        "graph": engine.graph,
        "precision": engine.precision,
        "canvas": size_text(engine.canvas),
        "size_bytes": sum(_size(manifest, path) for path in (engine.file, *engine.data)),
        "versions": dict(engine.versions),
        "outdated": bool(sources) and engine.source_sha256 not in sources,
        "gate": gate_state(engine),
        "cosine": engine.gate.cosine if engine.gate else None,
        "agreement": engine.gate.agreement if engine.gate else None,
        "layers": to_json(engine.layers),
        "report": engine.report,
    }


def layers_text(layers: Mapping[str, Mapping[str, int]]) -> str:
    """What a compiler made of an engine, in words: "72 gemm int8, 12 attention fp16"."""
    return ", ".join(f"{count} {kind} {name}" for kind, counts in layers.items() for name, count in counts.items())


def _selection(selection: Selection) -> dict[str, Any]:
    return {
        "backend": selection.backend,
        "device": selection.device,
        "precisions": dict(selection.precisions),
        "canvases": [size_text(canvas) for canvas in selection.canvases],
        "cosine": selection.gate.cosine,
        "agreement": selection.gate.agreement,
        "report": selection.report,
    }


def _size(manifest: Manifest, path: str) -> int:
    return manifest.files[path].bytes if path in manifest.files else 0
