"""Opens a bundle, gives out its files once they are checked, and changes it all-or-nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.atomic import FileLock, storage_errors
from edgeseg.bundle.check import REFERENCE_TEXT, made_of
from edgeseg.bundle.commit import commit, discard, interrupted, make_stage, recover
from edgeseg.bundle.create import creating, restore
from edgeseg.bundle.digest import Advance, digest
from edgeseg.bundle.edit import BundleEdit
from edgeseg.bundle.paths import LOCK, MANIFEST, UNDAMAGED, contained, listing
from edgeseg.bundle.read import read_manifest
from edgeseg.errors import BundleError
from edgeseg.schema import PRECISIONS, EngineSpec, FileSpec, GraphSpec, Manifest, Size, size_text

if TYPE_CHECKING:
    import numpy.typing as npt

Progress = Callable[[int, int], None]


class Bundle:
    """A bundle on disk.

    Attributes:
        path: its directory, absolute, links resolved.
        manifest: what `bundle.json` held when it was opened, or at the end of this object's last edit.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest

    @classmethod
    def open(cls, path: Path | str) -> Bundle:
        """Read and check `bundle.json`; files are checked when they are used. Raises BundleError."""
        root = Path(os.path.realpath(path))
        restore(root)
        if not root.is_dir():
            found = "it is no directory" if root.exists() else "there is no such directory"
            raise BundleError(f"open the bundle {path}", found, "give the directory that `edgeseg export` made")
        if not os.path.lexists(root / MANIFEST):
            todo = "give the directory that `edgeseg export` made"
            raise BundleError(f"open the bundle {path}", f"it holds no {MANIFEST}", todo)
        if interrupted(root):
            with FileLock(root / LOCK, f"repair the bundle {path} after an interrupted change"):
                recover(root)
        return cls(root, read_manifest(root))

    @classmethod
    def create(
        cls, path: Path | str, manifest: Manifest, overwrite: bool = False
    ) -> AbstractContextManager[BundleEdit]:
        """A context manager that yields a `BundleEdit` of a new bundle, which appears at `path` when the block ends.

        Args:
            path: where; its parent exists. An empty directory there is taken.
            manifest: what the edit starts from, without files.
            overwrite: take the place of a bundle that is there. Anything that is no bundle is never replaced.

        Raises:
            BundleError: something is in the place. StorageError: the disk is full. Either way nothing is left behind.
        """
        return creating(Path(os.path.realpath(path)), manifest, overwrite)

    @contextmanager
    def edit(self, wait: bool = True) -> Iterator[BundleEdit]:
        """Yields a `BundleEdit` of the bundle as it is now on disk; all changes take effect when the block ends.

        After any exception, an interrupt, or a full disk, nothing has changed. One edit at a time holds the lock.

        Args:
            wait: wait for another edit; if False, raise a StorageError when there is one.
        """
        with FileLock(self.path / LOCK, f"change the bundle {self.path}", wait):
            recover(self.path)
            before = read_manifest(self.path)
            with storage_errors(f"change the bundle {self.path}"), self._stage() as stage:
                edit = BundleEdit(before, stage, self.path)
                yield edit
                after = edit.finish()
                if after != before:
                    commit(self.path, stage, before, after)
            self.manifest = after

    @contextmanager
    def _stage(self) -> Iterator[Path]:
        stage = make_stage(self.path)
        try:
            yield stage
        finally:
            discard(stage)

    def file(self, relative: str) -> Path:
        """Path of a file that is inside the bundle, listed, and unchanged since it was written. Raises BundleError."""
        return self._checked(relative)

    def plain(self, relative: str) -> Path:
        """Path of a listed file of the right length, for a reader that checks the digest itself. Raises BundleError."""
        return self._listed(relative)[0]

    def graph(self, name: str, precision: str, canvas: Size | None, form: str = "typed") -> GraphSpec:
        """The graph made for this canvas, else the one that fits any; of this form, else of the one there is.

        Raises:
            BundleError: there is no such graph.
        """
        found = [graph for graph in self._graphs(name) if graph.precision == precision]
        for key in (canvas, None):
            fitting = {graph.form: graph for graph in found if graph.canvas == key}
            if fitting:
                return fitting.get(form) or next(iter(fitting.values()))
        there = ", ".join(f"{graph.precision} {size_text(graph.canvas)}" for graph in self._graphs(name)) or "none"
        asked = f"use the {precision} graph {name} for {size_text(canvas)}"
        raise BundleError(asked, f"the bundle holds {there}", "choose one of these, or `edgeseg quantize` or export it")

    def graph_files(self, spec: GraphSpec | EngineSpec) -> Path:
        """Path of a graph's or engine's file, after it and all that it refers to were checked. Raises BundleError."""
        if isinstance(spec, GraphSpec) and spec.file not in self.manifest.files:
            found = "only its engines were packed into this bundle"
            raise BundleError(f"read the graph {made_of(spec)}", found, "use the bundle that this one was packed from")
        for path in spec.data:
            self._checked(path)
        return self._checked(spec.file)

    def precisions(self) -> tuple[str, ...]:
        """The precisions of its graphs, the most exact first."""
        found = {graph.precision for graph in self.manifest.graphs}
        return tuple(precision for precision in PRECISIONS if precision in found)

    def reference(self, key: str) -> list[dict[str, npt.NDArray[Any]]]:
        """Reference tensors of a canvas ("640x640") or of the text encoder ("text"), one dict per file, by name."""
        from edgeseg.bundle.arrays import read_npz  # numpy is not needed to look at a bundle

        if key not in self.manifest.reference:
            what = "the text encoder" if key == REFERENCE_TEXT else f"the canvas {key}"
            raise BundleError(f"read the reference tensors of {what}", "the bundle holds none", "export it again")
        return [read_npz(self._checked(path)) for path in self.manifest.reference[key]]

    def verify(self, progress: Progress | None = None) -> None:
        """Check every file, and that there is none beside them. Raises BundleError, which names the first that fails.

        Args:
            progress: called with the bytes read so far and the bytes of all files.
        """
        total, done = self.size_bytes, 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if progress:
                progress(done, total)

        for relative in self.manifest.files:
            self._checked(relative, advance)
        extra = [path for path in listing(self.path) if path not in self.manifest.files]
        if extra:
            found = f"bundle.json does not list {extra[0]!a}" + (f" and {len(extra) - 1} more" * (len(extra) > 1))
            raise BundleError(f"verify the bundle {self.path}", found, f"remove what is not listed, or {UNDAMAGED}")

    @property
    def size_bytes(self) -> int:
        """Bytes of all listed files."""
        return sum(spec.bytes for spec in self.manifest.files.values())

    def _graphs(self, name: str) -> list[GraphSpec]:
        return [graph for graph in self.manifest.graphs if graph.name == name]

    def _checked(self, relative: str, advance: Advance | None = None) -> Path:
        path, spec = self._listed(relative)
        if digest(path, advance).sha256 != spec.sha256:
            asked = f"use the bundle's file {relative!a}"
            raise BundleError(asked, "its content has changed since it was written", UNDAMAGED)
        return path

    def _listed(self, relative: str) -> tuple[Path, FileSpec]:
        asked, spec = f"use the bundle's file {relative!a}", self.manifest.files.get(relative)
        if spec is None:
            raise BundleError(asked, "bundle.json does not list it", UNDAMAGED)
        path = contained(self.path, relative)
        size = path.stat().st_size
        if size != spec.bytes:
            raise BundleError(asked, f"it has {size} bytes and should have {spec.bytes}", UNDAMAGED)
        return path, spec
