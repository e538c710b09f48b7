"""Makes the lean copy of a bundle for a device: one precision, and engines in place of the graphs they came from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from edgeseg.bundle.bundle import Bundle, Progress
from edgeseg.bundle.check import REFERENCE_TEXT, Made, made_of
from edgeseg.bundle.digest import copy
from edgeseg.bundle.paths import TOKENIZER, UNDAMAGED
from edgeseg.errors import BundleError, InputError, StorageError
from edgeseg.schema import PRECISIONS, EngineSpec, GraphSpec, Manifest, Size, size_text

TEXT_GRAPH = "text"


@dataclass(frozen=True)
class PackChoice:
    """What to keep.

    Attributes:
        precision: of graphs and engines; None if the bundle holds one only.
        backend, device: keep the engines of this backend, of this device key (None: of every one), and drop the graphs
            that have one. Without a backend all graphs stay and no engine.
        canvases: these only; all if empty.
        text: keep the text encoder and its tokenizer, without which the copy needs vocabulary files.
    """

    precision: str | None = None
    backend: str | None = None
    device: str | None = None
    canvases: tuple[Size, ...] = ()
    text: bool = True


def pack(
    bundle: Bundle, out: Path, choice: PackChoice, *, overwrite: bool = False, progress: Progress | None = None
) -> Bundle:
    """Copy what `choice` keeps of a bundle to a new one.

    Args:
        bundle: the full bundle; each file's digest is checked as it is copied.
        out: where the new one appears, once it is complete.
        choice: what to keep.
        overwrite: take the place of a bundle that is there.
        progress: called with the bytes copied so far and the bytes of all files.

    Raises:
        BundleError: the bundle lacks what was asked for, or is damaged.
        InputError: `out` is the bundle itself, or there is a device and no backend.
        StorageError: the disk is full.
    """
    if choice.device and not choice.backend:
        found = "a device chooses among the engines of a backend"
        raise InputError(f"pack {bundle.path} for {choice.device}", found, "give --backend too")
    if Path(os.path.realpath(out)) == bundle.path:
        raise InputError(f"pack {bundle.path} onto itself", "it is both source and target", "choose another place")
    chosen = select(bundle.manifest, choice)
    total = sum(spec.bytes for spec in chosen.files.values())
    _check_room(out, total)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(done, total)

    with Bundle.create(out, replace(chosen, files={}), overwrite) as edit:
        for relative, spec in chosen.files.items():
            if copy(bundle.plain(relative), edit.stage(relative), advance) != spec:
                raise BundleError(f"pack {relative}", "its content is not what bundle.json lists", UNDAMAGED)
    return Bundle.open(out)


def select(manifest: Manifest, choice: PackChoice) -> Manifest:
    """The manifest of the copy, its `files` being those to be copied. Raises BundleError."""
    precision = choice.precision or _only_precision(manifest)
    canvases = _canvases(manifest, choice.canvases)
    graphs = tuple(graph for graph in _graphs(manifest, precision) if _wanted(graph, canvases, choice.text))
    made = {made_of(graph) for graph in graphs}
    engines = tuple(engine for engine in _engines(manifest, choice) if made_of(engine) in made)
    if choice.backend and not engines:
        there = sorted({_described(engine) for engine in manifest.engines})
        todo = f"run `edgeseg build --backend {choice.backend}` first, or leave --backend out to pack the graphs"
        asked = f"pack {precision} engines of {choice.backend}" + (f" for {choice.device}" if choice.device else "")
        raise BundleError(asked, f"the bundle holds {', '.join(there) or 'no engine'}", todo)
    keys = {*map(size_text, canvases), *([REFERENCE_TEXT] if choice.text else [])}
    reference = {key: paths for key, paths in manifest.reference.items() if key in keys}
    selected = replace(manifest, canvases=canvases, graphs=graphs, engines=engines, reference=reference)
    selected = replace(selected, selections=())  # they are of several precisions
    needed = _needed(selected, choice.text)
    return replace(selected, files={path: spec for path, spec in manifest.files.items() if path in needed})


def _only_precision(manifest: Manifest) -> str:
    found = sorted({graph.precision for graph in manifest.graphs}, key=PRECISIONS.index)
    if len(found) != 1:
        raise BundleError("pack the bundle", f"it holds {', '.join(found) or 'no graph'}", "say --precision")
    return found[0]


def _canvases(manifest: Manifest, wanted: tuple[Size, ...]) -> tuple[Size, ...]:
    for canvas in wanted:
        if canvas not in manifest.canvases:
            there = ", ".join(map(size_text, manifest.canvases))
            raise BundleError(
                f"pack the canvas {size_text(canvas)}", f"the bundle holds {there}", "choose one of these"
            )
    return tuple(canvas for canvas in manifest.canvases if not wanted or canvas in wanted)


def _graphs(manifest: Manifest, precision: str) -> list[GraphSpec]:
    """Graphs of the precision; of the text encoder the most exact one, if it has none of that precision."""
    by_name: dict[str, list[GraphSpec]] = {}
    for graph in manifest.graphs:
        by_name.setdefault(graph.name, []).append(graph)
    chosen: list[GraphSpec] = []
    for name, graphs in by_name.items():
        kept = [graph for graph in graphs if graph.precision == precision]
        if not kept and name == TEXT_GRAPH:
            kept = [min(graphs, key=lambda graph: PRECISIONS.index(graph.precision))]
        if not kept:
            there = ", ".join(sorted({graph.precision for graph in graphs}, key=PRECISIONS.index))
            todo = f"run `edgeseg quantize --precision {precision}` first, or choose another precision"
            raise BundleError(f"pack the precision {precision}", f"the graph {name} is there in {there} only", todo)
        chosen += kept
    return chosen


def _wanted(graph: GraphSpec, canvases: Iterable[Size], text: bool) -> bool:
    return (graph.canvas is None or graph.canvas in canvases) and (text or graph.name != TEXT_GRAPH)


def _engines(manifest: Manifest, choice: PackChoice) -> list[EngineSpec]:
    return [
        engine
        for engine in manifest.engines
        if engine.backend == choice.backend and choice.device in (None, engine.device) and not _failed(engine)
    ]


def _failed(engine: EngineSpec) -> bool:
    return engine.gate is not None and not engine.gate.passed


def _described(engine: EngineSpec) -> str:
    return f"{engine.backend} {engine.device} {engine.precision}" + (" that failed its gate" if _failed(engine) else "")


def _needed(manifest: Manifest, text: bool) -> set[str]:
    """Paths of what the copy needs; the graphs that every chosen device has an engine for are not among them."""
    devices = {engine.device for engine in manifest.engines}
    built: dict[Made, set[str]] = {}
    for engine in manifest.engines:
        built.setdefault(made_of(engine), set()).add(engine.device)
    graphs = [graph for graph in manifest.graphs if built.get(made_of(graph), set()) != devices or not devices]
    specs: list[GraphSpec | EngineSpec] = [*graphs, *manifest.engines]
    named = {path for spec in specs for path in (spec.file, *spec.data)}
    named |= {path for paths in manifest.reference.values() for path in paths}
    named |= {engine.report for engine in manifest.engines if engine.report}
    return named | ({TOKENIZER} if text else set())


def _check_room(out: Path, size_bytes: int, free: Callable[[Path], int] | None = None) -> None:
    """Refuse before the first byte what would fill the disk."""
    folder = Path(os.path.realpath(out)).parent
    if folder.is_dir():
        room = free(folder) if free else shutil.disk_usage(folder).free
        if room < size_bytes:
            found = f"{size_bytes >> 20} MiB are needed, and {room >> 20} MiB are free"
            raise StorageError(f"pack to {out}", found, "free some space, or write to another disk")
