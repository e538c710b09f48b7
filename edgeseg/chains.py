"""The chains of a bundle, one per canvas: opened when first needed, the two used last kept open.

Graphs that fit any canvas are opened once and shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeseg.backends.base import Session
from edgeseg.chain import Chain, Link
from edgeseg.schema import Size
from edgeseg.selection import Plan

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle

KEPT = 2


class Chains:
    """See the module's text.

    Args:
        bundle: an opened bundle.
        plan: what runs it.
        graphs: names of the family's graphs.
    """

    def __init__(self, bundle: Bundle, plan: Plan, graphs: Sequence[str]) -> None:
        self.bundle, self.plan = bundle, plan
        self._graphs = graphs
        self._streams = plan.backend.streams(2, plan.device)
        self._chains: dict[Size, Chain] = {}  # the one used last stands last
        self._shared: dict[str, Session] = {}

    def chain(self, canvas: Size) -> Chain:
        """The chain of this canvas. Raises BundleError or BackendError."""
        chain = self._chains.pop(canvas, None)
        if chain is None:
            while len(self._chains) >= KEPT:
                self._close(self._chains.pop(next(iter(self._chains))))
            chain = Chain(self._links(canvas), self._streams)
        self._chains[canvas] = chain
        return chain

    def close(self) -> None:
        """Free every engine."""
        for chain in self._chains.values():
            self._close(chain)
        for session in self._shared.values():
            session.close()
        self._chains, self._shared = {}, {}

    def _links(self, canvas: Size) -> list[Link]:
        links: list[Link] = []
        try:
            for name in self._graphs:
                graph = self.bundle.graph(name, self.plan.precision_of(name), canvas, self.plan.form)
                if graph.canvas is None and name not in self._shared:
                    self._shared[name] = self.plan.open(self.bundle, graph)
                links.append(Link(graph, self._shared.get(name) or self.plan.open(self.bundle, graph)))
        except BaseException:
            for link in links:
                _close_link(link)
            raise
        return links

    def _close(self, chain: Chain) -> None:
        for link in chain.order:
            _close_link(link)


def _close_link(link: Link) -> None:
    if link.graph.canvas is not None:
        link.session.close()
