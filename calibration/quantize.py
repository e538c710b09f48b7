"""A bundle's fp32 graphs as graphs of a lower precision, added to the same bundle."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping

from edgeseg.bundle import Bundle
from edgeseg.errors import BuildError
from edgeseg.schema import GraphSpec

from .makers import Eights, Halves, Maker, Quantized
from .ranges import Ranges, ranges_bytes

RANGES_FILE = "calibration/ranges.json"
"""Where a bundle keeps what its last calibration found."""

Watch = Callable[[int, int], None]


def masters(bundle: Bundle) -> list[GraphSpec]:
    """The fp32 graphs, those that share weights next to each other. Raises BuildError if there are none."""
    graphs = [graph for graph in bundle.manifest.graphs if graph.precision == "fp32"]
    if not graphs:
        found = f"the bundle holds only {', '.join(bundle.precisions())} graphs"
        raise BuildError(f"quantize {bundle.path}", found, "use the bundle that `edgeseg export` wrote")
    return sorted(graphs, key=lambda graph: graph.name)


def quantize_bundle(bundle: Bundle, watch: Watch, ranges: Ranges | None = None) -> list[Quantized]:
    """Add fp16 graphs to a bundle, replacing earlier ones; all of them or, after an error, none.

    Args:
        bundle: holds the fp32 graphs.
        watch: called with the number of graphs done and of all, once per graph and at the end.
        ranges: of a calibration of these graphs, which tells where fp16 is too narrow; None goes by rules alone.

    Raises:
        BuildError: there are no fp32 graphs, or the ranges are of others.
    """
    return add_graphs(bundle, Halves(bundle, ranges), watch, ranges)


def quantize_calibrated(
    bundle: Bundle,
    precision: str,
    ranges: Ranges,
    watch: Watch,
    leave_out: Mapping[str, Collection[str]] | None = None,
) -> list[Quantized]:
    """Add int8 or fp8 graphs to a bundle, and the ranges; all of it or, after an error, nothing.

    Args:
        bundle: holds the fp32 graphs.
        precision: "int8", which is written in both forms, or "fp8".
        ranges: of a calibration of these graphs.
        watch: as for `quantize_bundle`.
        leave_out: for each graph the names of nodes (`sites.find_sites`) that are not quantized.

    Raises:
        BuildError: the ranges are of other graphs.
    """
    return add_graphs(bundle, Eights(bundle, precision, ranges, leave_out or {}), watch, ranges)


def add_graphs(
    bundle: Bundle, maker: Maker, watch: Watch, ranges: Ranges | None, files: Mapping[str, bytes] | None = None
) -> list[Quantized]:
    """Add what a maker makes of all fp32 graphs, the ranges, and further files; all of it or, after an error, nothing.

    Args:
        bundle: holds the fp32 graphs.
        maker: makes the graphs.
        watch: as for `quantize_bundle`.
        ranges: kept in the bundle, if there are any.
        files: path in the bundle → content.
    """
    done: list[Quantized] = []
    graphs = masters(bundle)
    with bundle.edit() as edit:
        count = 0
        for name, group in itertools.groupby(graphs, key=lambda graph: graph.name):
            for items in maker.group(name, list(group), edit.stage):
                watch(count, len(graphs))
                count += 1
                done += items
        for item in done:
            edit.add_graph(item.graph)
        if ranges is not None:
            edit.stage(RANGES_FILE).write_bytes(ranges_bytes(ranges))
        for path, content in (files or {}).items():
            edit.stage(path).write_bytes(content)
    watch(count, len(graphs))
    return done
