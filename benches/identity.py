"""What a result says about which engines it belongs to: a digest, by which others are known to be of the same ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from edgeseg.pipelines import get_pipeline
from edgeseg.segmenter import Segmenter


def engine_files(segmenter: Segmenter) -> dict[str, Any]:
    """Digests of all files that run, and how images go in."""
    bundle, plan = segmenter.bundle, segmenter.plan
    manifest = bundle.manifest
    files: dict[str, str] = {}
    for canvas in plan.canvases:
        for name in get_pipeline(manifest).graphs:
            graph = bundle.graph(name, plan.precision_of(name), canvas, plan.form)
            used = plan.engines.get((graph.name, graph.canvas)) or graph
            files |= {file: manifest.files[file].sha256 for file in (used.file, *used.data)}
    return {"files": files, "recipe": manifest.recipe, "images": repr(sorted(manifest.images.items()))}


def engines_sha256(segmenter: Segmenter) -> str:
    """64 hex digits: the same for the same files and the same rule for images, wherever the bundle lies."""
    return hashlib.sha256(json.dumps(engine_files(segmenter), sort_keys=True).encode()).hexdigest()


def shown_path(path: Path) -> str:
    """Relative to the working folder where it lies in it: a result that is published should not name anyone's home."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
