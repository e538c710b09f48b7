"""What is to change in a bundle: files to add, graphs and engines to list. Nothing takes effect before the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeseg.bundle.check import engine_key, graph_key, referenced
from edgeseg.bundle.commit import NEW, SCRATCH
from edgeseg.bundle.digest import digest
from edgeseg.bundle.paths import check_relative, contained, prepare, present
from edgeseg.errors import BundleError
from edgeseg.schema import EngineSpec, FileSpec, GraphSpec, Manifest


class BundleEdit:
    """The changes of one `Bundle.edit()` or `Bundle.create()`.

    Attributes:
        manifest: as it will be, so far without the digests of staged files.
    """

    def __init__(self, manifest: Manifest, stage: Path, root: Path | None = None) -> None:
        self.manifest = manifest
        self._stage, self._root, self._before = stage, root, manifest
        self._staged: set[str] = set()
        self._removed: set[str] = set()

    def stage(self, relative: str) -> Path:
        """Where to write the bundle's file `relative` now, on the disk of the bundle; its folder is there.

        Files staged side by side lie side by side, so a staged graph finds its staged weights. A staged file takes the
        place of one that the bundle has.
        """
        path = prepare(self._stage / NEW, relative)
        self._staged.add(relative)
        self._removed.discard(relative)
        return path

    def scratch(self) -> Path:
        """A folder for files that are needed only while this edit lasts."""
        return self._stage / SCRATCH

    def current(self, relative: str) -> Path:
        """Where the file `relative` is to be read while this edit lasts: as staged, else as in the bundle."""
        if relative in self._staged or self._root is None:
            return contained(self._stage / NEW, relative)
        return contained(self._root, relative)

    def digest(self, relative: str) -> FileSpec:
        """Digest of a file as it will be; a staged one must be complete."""
        return digest(self.current(relative)) if relative in self._staged else self.manifest.files[relative]

    def add_graph(self, spec: GraphSpec) -> None:
        """List a graph; it takes the place of one of the same name, precision, canvas and form."""
        kept = (graph for graph in self.manifest.graphs if graph_key(graph) != graph_key(spec))
        self.manifest = replace(self.manifest, graphs=(*kept, spec))

    def add_engine(self, spec: EngineSpec) -> None:
        """List an engine; it takes the place of one of the same graph, precision, canvas, backend and device."""
        kept = (engine for engine in self.manifest.engines if engine_key(engine) != engine_key(spec))
        self.manifest = replace(self.manifest, engines=(*kept, spec))

    def add_reference(self, key: str, relative: str) -> None:
        """List a file of reference tensors under a canvas ("640x640") or "text"."""
        paths = self.manifest.reference.get(key, ())
        reference = {**self.manifest.reference, key: (*(path for path in paths if path != relative), relative)}
        self.manifest = replace(self.manifest, reference=reference)

    def remove_graphs(self, which: Callable[[GraphSpec], bool]) -> None:
        """Drop the graphs for which `which` is true, and the files that nothing else needs."""
        self.manifest = replace(self.manifest, graphs=tuple(g for g in self.manifest.graphs if not which(g)))

    def remove_engines(self, which: Callable[[EngineSpec], bool]) -> None:
        """Drop the engines for which `which` is true, and the files that nothing else needs."""
        self.manifest = replace(self.manifest, engines=tuple(e for e in self.manifest.engines if not which(e)))

    def remove(self, relative: str) -> None:
        """Drop a file that no graph, engine or reference entry names any more."""
        self._removed.add(check_relative(relative))
        self._staged.discard(relative)

    def update(self, **changes: Any) -> None:
        """Replace fields of the manifest: `recipe`, `canvases`, `images`, `name`, `source`."""
        self.manifest = replace(self.manifest, **changes)

    def finish(self) -> Manifest:
        """The manifest with the digests of everything staged. Called by `Bundle`, at the end."""
        for path in self._staged:
            if not present(self._stage / NEW, path):
                raise BundleError(f"add {path} to the bundle", "it was staged but never written", "report this fault")
        orphans = referenced(self._before) - referenced(self.manifest)
        dropped = (orphans | self._removed) - self._staged
        files = {path: spec for path, spec in self.manifest.files.items() if path not in dropped}
        files |= {path: digest(self._stage / NEW / path) for path in sorted(self._staged)}
        self.manifest = replace(self.manifest, files=files)
        return self.manifest
