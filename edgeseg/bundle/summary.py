"""What a bundle holds, as plain JSON: the body of `edgeseg inspect --json`."""

from __future__ import annotations

from typing import Any

from edgeseg.bundle.bundle import Bundle
from edgeseg.bundle.check import made_of
from edgeseg.schema import EngineSpec, GraphSpec, Manifest, size_text, to_json


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
    graphs = {made_of(graph): graph.file for graph in manifest.graphs}
    source = manifest.files.get(graphs.get(made_of(engine), ""))
    return {
        "backend": engine.backend,
        "device": engine.device,
        "graph": engine.graph,
        "precision": engine.precision,
        "canvas": size_text(engine.canvas),
        "size_bytes": sum(_size(manifest, path) for path in (engine.file, *engine.data)),
        "versions": dict(engine.versions),
        "outdated": source is not None and source.sha256 != engine.source_sha256,
        "gate": gate_state(engine),
        "cosine": engine.gate.cosine if engine.gate else None,
        "agreement": engine.gate.agreement if engine.gate else None,
    }


def _size(manifest: Manifest, path: str) -> int:
    return manifest.files[path].bytes if path in manifest.files else 0
