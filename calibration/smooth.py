"""SmoothQuant (Xiao et al. 2023): a LayerNormalization takes over part of the spread between the channels it gives.

Channel c of the norm's result is divided by s_c, in its scale and shift, and row c of every weight that reads it is
multiplied by s_c: the same function, nothing more to compute, and activations that one scale for all channels fits
better. s_c = max|x_c|^alpha / max|w_c|^(1 - alpha).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from .graph import users
from .histogram import best_range, count
from .integers import INT8
from .net import Net
from .ranges import rounded
from .sites import Site, Sites

Float32 = npt.NDArray[np.float32]

ALPHAS = (0.4, 0.5, 0.6, 0.7, 0.8)
"""What is tried; doing nothing is tried too, and wins a tie."""


@dataclass(frozen=True)
class Group:
    """Norms that share parameters or readers, and so share their factors.

    Attributes:
        name: of its first site in alphabetical order.
        sites: what the norms give.
        parameters: scales and shifts of the norms. `weights`: of the layers. Nothing outside the group reads either.
    """

    name: str
    sites: tuple[Site, ...]
    parameters: tuple[str, ...]
    weights: tuple[str, ...]


def find_groups(graph: onnx.GraphProto, sites: Sites) -> list[Group]:
    """The groups whose norms can take factors up."""
    nodes = {node.name: node for node in graph.node}
    merged: list[tuple[list[Site], set[str]]] = []
    for site in sites.layers:
        if site.norm is None:
            continue
        held = {*nodes[site.norm].input[1:], *(layer.weight for layer in site.layers)} - {""}
        touching = [part for part in merged if part[1] & held]
        merged = [part for part in merged if part not in touching]
        joined = [found for part in touching for found in part[0]]
        merged.append(([*joined, site], held.union(*(part[1] for part in touching))))
    readers = users(graph)
    groups = [_group(nodes, part) for part, _ in merged]
    return [group for group in groups if _alone(group, readers)]


def _group(nodes: Mapping[str, onnx.NodeProto], sites: Sequence[Site]) -> Group:
    parameters = {name for site in sites if site.norm for name in nodes[site.norm].input[1:] if name}
    weights = {layer.weight for site in sites for layer in site.layers}
    return Group(min(site.name for site in sites), tuple(sites), tuple(sorted(parameters)), tuple(sorted(weights)))


def _alone(group: Group, readers: Mapping[str, Sequence[onnx.NodeProto]]) -> bool:
    """Whether nothing outside the group reads its parameters and weights."""
    inside = {site.norm for site in group.sites} | {layer.node for site in group.sites for layer in site.layers}
    return all(reader.name in inside for name in (*group.parameters, *group.weights) for reader in readers[name])


def fold(net: Net, group: Group, factors: Float32) -> None:
    """Divide what the group's norms give by `factors` (C,), and multiply the weights that read it."""
    for name in group.parameters:
        net.set_weight(name, (net.weight(name) / factors).astype(np.float32))
    for name in group.weights:
        net.set_weight(name, (net.weight(name) * factors[:, None]).astype(np.float32))


def choose(largest: Float32, rows: Float32, weights: Sequence[Float32]) -> tuple[float, Float32]:
    """The alpha with the least error on sampled rows, and its factors; alpha 0 and ones if nothing helps.

    Args:
        largest: (C,) largest magnitude of each channel.
        rows: (R, C) of what the norms give.
        weights: (C, N) each, of the layers that read it.
    """
    heaviest = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
    tried = {0.0: np.ones_like(largest)} | {alpha: _factors(largest, heaviest, alpha) for alpha in ALPHAS}
    exact = [rows @ weight for weight in weights]
    errors = {alpha: _error(rows, weights, exact, factors) for alpha, factors in tried.items()}
    best = min(tried, key=lambda alpha: errors[alpha])
    return best, tried[best]


def _factors(largest: Float32, heaviest: Float32, alpha: float) -> Float32:
    """(C,) float32 of six digits, as they are saved; 1 where a channel is always zero."""
    used = (largest > 0) & (heaviest > 0)
    spread = np.where(used, largest, 1.0) ** alpha / np.where(used, heaviest, 1.0) ** (1 - alpha)
    middle = np.exp(np.log(spread).mean())
    return np.array(
        [rounded(float(value)) for value in np.where(used, np.clip(spread / middle, 1e-3, 1e3), 1.0)], np.float32
    )


def _error(rows: Float32, weights: Sequence[Float32], exact: Sequence[Float32], factors: Float32) -> float:
    """Sum over the weights of the squared error of their products, relative to the products."""
    smooth = rows / factors
    limit, _ = best_range(count(smooth), float(np.abs(smooth).max(initial=0.0)), INT8.largest)
    given = INT8.rounded(smooth, INT8.scale(limit))
    total = 0.0
    for weight, wanted in zip(weights, exact, strict=True):
        heavier = weight * factors[:, None]
        found = given @ INT8.rounded(heavier, INT8.weight_scale(heavier, 1), 1)
        total += float(np.square(found - wanted).sum() / max(float(np.square(wanted).sum()), 1e-30))
    return total


def merge(arrays: Iterable[Float32]) -> Float32:
    """Elementwise maximum of (C,) arrays."""
    largest: Float32 = np.max(list(arrays), axis=0)
    return largest
