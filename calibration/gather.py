"""What is gathered of one graph's tensors while images run through it; its size does not depend on their number."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeseg.errors import BuildError

from . import histogram, smooth
from .integers import INT8
from .net import Net
from .ranges import GraphRanges, Range, Smoothing, rounded
from .sites import Sites

Float32 = npt.NDArray[np.float32]

PILOTS = 8
"""Images from which the smoothing is chosen, before what it gives is counted on all of them."""

ROWS = 128
"""Rows of a tensor that are kept to choose by."""


@dataclass
class Counted:
    """What is known of a graph's tensors so far; all that has to be kept to go on later.

    Attributes:
        smoothing: by group.
        histograms: (S, BINS) of the sites, smoothed, in their order. `largest`: (S,) magnitudes of the same.
        peaks: (P,) magnitudes, in the order of `Sites.peaks`.
    """

    smoothing: dict[str, Smoothing]
    histograms: npt.NDArray[np.int64]
    largest: npt.NDArray[np.float64]
    peaks: npt.NDArray[np.float64]


class Gatherer:
    """Takes one graph's tensors: `pilot` for a few images, `settle`, `add` for all images, then `ranges`.

    Args:
        net: the graph and its weights. `sites`: its sites.
        pilots: how many images come to `pilot`.
    """

    def __init__(self, net: Net, sites: Sites, pilots: int) -> None:
        self._net, self._sites, self._pilots = net, sites, pilots
        self._groups = smooth.find_groups(net.graph, sites)
        self._channels: dict[str, Float32] = {}  # site → largest magnitude of each channel
        self._rows: dict[str, list[Float32]] = {}
        self._factors: dict[str, Float32] = {}  # site → what it is divided by
        count = len(sites.layers)
        empty = np.zeros((count, histogram.BINS), np.int64)
        self.counted = Counted({}, empty, np.zeros(count), np.zeros(len(sites.peaks)))

    def pilot(self, values: Mapping[str, Float32]) -> None:
        """Look at one image's tensors, by site."""
        for site in (site for group in self._groups for site in group.sites):
            rows = self._given(values, site.name)
            rows = rows.reshape(-1, rows.shape[-1])
            self._check(site.tensor, rows)
            largest = np.abs(rows).max(axis=0)
            self._channels[site.name] = np.maximum(self._channels.get(site.name, largest), largest)
            kept = self._rows.setdefault(site.name, [])
            step = max(len(rows) * self._pilots // ROWS, 1)
            kept.append(rows[len(kept) * 7 % step :: step].copy())  # other places in every image

    def settle(self) -> None:
        """Choose the smoothing of every group."""
        smoothing = {}
        for group in self._groups:
            largest = smooth.merge(self._channels[site.name] for site in group.sites)
            rows = np.concatenate([part for site in group.sites for part in self._rows[site.name]])
            alpha, factors = smooth.choose(largest, rows, [self._net.weight(name) for name in group.weights])
            if alpha > 0:
                smoothing[group.name] = Smoothing(alpha, tuple(rounded(float(factor)) for factor in factors))
        self._rows.clear()
        self.resume(Counted(smoothing, self.counted.histograms, self.counted.largest, self.counted.peaks))

    def resume(self, counted: Counted) -> None:
        """Go on from what was counted before."""
        self.counted = counted
        for group in self._groups:
            if group.name in counted.smoothing:
                factors = np.array(counted.smoothing[group.name].factors, np.float32)
                self._factors |= {site.name: factors for site in group.sites}

    def add(self, values: Mapping[str, Float32]) -> None:
        """Count one image's tensors, by site, and peaks, by their names."""
        for index, site in enumerate(self._sites.layers):
            array = self._given(values, site.name)
            if site.name in self._factors:
                array = array / self._factors[site.name]
            found = histogram.count(array)
            if not histogram.is_finite(found):
                self._check(site.tensor, array)
            self.counted.histograms[index] += found
            self.counted.largest[index] = max(self.counted.largest[index], float(np.abs(array).max()))
        for index, (name, tensor) in enumerate(self._sites.peaks.items()):
            peak = self._given(values, name)
            self._check(tensor, peak)
            self.counted.peaks[index] = max(self.counted.peaks[index], float(peak))

    def ranges(self) -> GraphRanges:
        """The ranges of everything counted."""
        sites = {}
        for site, counts, largest in zip(
            self._sites.layers, self.counted.histograms, self.counted.largest, strict=True
        ):
            limit, percentile = histogram.best_range(counts, float(largest), INT8.largest)
            sites[site.name] = Range(rounded(float(largest)), rounded(limit), percentile)
        peaks = {name: rounded(float(peak)) for name, peak in zip(self._sites.peaks, self.counted.peaks, strict=True)}
        return GraphRanges(weights_digest(self._net, self._sites), sites, dict(self.counted.smoothing), peaks)

    def _given(self, values: Mapping[str, Float32], name: str) -> Float32:
        if name not in values:
            found = f"it has no {name} at another canvas"
            raise BuildError(f"calibrate the graph {self._net.name}", found, "export the bundle again")
        return values[name]

    def _check(self, tensor: str, values: Float32) -> None:
        if not np.isfinite(values).all():
            found = f"its tensor {tensor!r} holds {'NaN' if np.isnan(values).any() else 'infinity'}"
            todo = "check the checkpoint; a graph that gives such numbers in fp32 cannot be quantized"
            raise BuildError(f"calibrate the graph {self._net.name}", found, todo)


def weights_digest(net: Net, sites: Sites) -> str:
    """Digest of the weights of a graph's layers, the same at every canvas."""
    sha = hashlib.sha256()
    for node, weight in sorted((layer.node, layer.weight) for site in sites.layers for layer in site.layers):
        sha.update(node.encode() + b"\0")
        sha.update(np.ascontiguousarray(net.weight(weight)).data)
    return sha.hexdigest()
