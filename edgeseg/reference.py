"""Runs a bundle's reference inputs through its engines and compares with torch: the check of a device without torch.

The chain runs from the image to the label map, so a graph is judged on the inputs it will really get. Tensors are
compared on the samples that the bundle holds (every n-th value), labels at every pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeseg.backends.base import Array, Session
from edgeseg.chain import Chain
from edgeseg.compose import compose
from edgeseg.errors import BundleError, GateError
from edgeseg.pipelines import Pipeline
from edgeseg.placement import Placement
from edgeseg.schema import Gate, GraphSpec, Size, size_text

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle

SAMPLES = 16384
"""Most values of a tensor that a bundle keeps."""

_PREFIX = "tensor:"
_DEFAULTS = {"fp32": (0.9999, 0.999), "fp16": (0.999, 0.99)}
_ROUGH = (0.99, 0.97)  # int8, fp8, mixed


@dataclass(frozen=True)
class Limits:
    """What a chain must reach: the least cosine of any tensor, and the least share of equal labels."""

    cosine: float
    agreement: float


@dataclass(frozen=True)
class TensorCheck:
    """One tensor against torch.

    Attributes:
        canvas: "640x640", or "any" for the text encoder. `reference`: number of the reference input.
        graph: which gives the tensor; "preprocess" for network inputs.
        cosine: of the samples, 1 if both are zero; NaN counts as -1.
        max_abs: largest absolute difference.
    """

    canvas: str
    reference: int
    graph: str
    tensor: str
    cosine: float
    max_abs: float


@dataclass(frozen=True)
class LabelCheck:
    """One label map against torch's: the share of equal labels, 0 to 1."""

    canvas: str
    reference: int
    agreement: float


@dataclass(frozen=True)
class Report:
    """All comparisons of a bundle, backend and precision."""

    limits: Limits
    tensors: tuple[TensorCheck, ...]
    labels: tuple[LabelCheck, ...]

    @property
    def failures(self) -> list[str]:
        """One sentence per comparison that misses its limit, in the order of the chain."""
        bad = [
            f"{check.tensor} of {check.graph} at {check.canvas}: cosine {check.cosine:.6f} < {self.limits.cosine}"
            for check in self.tensors
            if not check.cosine >= self.limits.cosine
        ]
        return bad + [
            f"labels at {check.canvas}: {check.agreement:.2%} equal, {self.limits.agreement:.2%} wanted"
            for check in self.labels
            if not check.agreement >= self.limits.agreement
        ]

    def gate(self, graph: str, canvas: Size | None) -> Gate:
        """What one graph's engine made of it; every canvas counts for a graph that fits any."""
        mine = [c for c in self.tensors if c.graph == graph and (canvas is None or c.canvas == size_text(canvas))]
        agreements = [c.agreement for c in self.labels if canvas is None or c.canvas == size_text(canvas)]
        cosine = min((check.cosine for check in mine), default=-1.0)
        agreement = min(agreements, default=None)
        reached = cosine >= self.limits.cosine and (agreement is None or agreement >= self.limits.agreement)
        return Gate(reached, cosine, agreement)

    def require(self, asked: str, todo: str) -> None:
        """Raise a GateError that names the first graph which misses its limit, if any does."""
        if self.failures:
            more = f" (and {len(self.failures) - 1} more)" if len(self.failures) > 1 else ""
            raise GateError(asked, self.failures[0] + more, todo)


def limits(bundle: Bundle, precision: str) -> Limits:
    """The recipe's limits of a precision, or the documented defaults."""
    chosen = bundle.manifest.recipe.get("gate", {}).get(precision)
    if chosen is None:
        return Limits(*_DEFAULTS.get(precision, _ROUGH))
    return Limits(float(chosen["cosine"]), float(chosen["agreement"]))


def check_chains(
    bundle: Bundle, pipeline: Pipeline, chain: Callable[[Size], Chain], canvases: Iterable[Size], precision: str
) -> Report:
    """Run every reference input of the given canvases.

    Args:
        bundle: the opened bundle.
        pipeline: its family's.
        chain: gives the chain of a canvas; only one is in use at a time.
        canvases: those to check.
        precision: whose limits hold.

    Raises:
        BundleError: the bundle holds no reference for a canvas.
    """
    tensors: list[TensorCheck] = []
    labels: list[LabelCheck] = []
    for canvas in canvases:
        for number, stored in enumerate(_references(bundle, size_text(canvas))):
            found = _run(pipeline, chain(canvas), stored, canvas)
            place = (size_text(canvas), number)
            tensors += _compare(place, _makers(chain(canvas)), found, stored)
            labels.append(LabelCheck(*place, _agreement(pipeline, found, stored, canvas)))
    return Report(limits(bundle, precision), tuple(tensors), tuple(labels))


def check_text(bundle: Bundle, graph: GraphSpec, session: Session) -> Report:
    """Run the reference prompts through a session of the text encoder, which is closed afterwards."""
    tensors: list[TensorCheck] = []
    with closing(session):
        for number, stored in enumerate(_references(bundle, "text")):
            feed = {spec.name: session.upload(stored[spec.name]) for spec in graph.inputs}
            outputs = {name: session.download(tensor) for name, tensor in session.run(feed).items()}
            tensors += _compare(("any", number), dict.fromkeys(outputs, graph.name), outputs, stored)
    return Report(limits(bundle, graph.precision), tuple(tensors), ())


def sample(array: Array) -> Array:
    """The flat samples of a tensor that a bundle keeps: every n-th value, at most `SAMPLES`, float32."""
    return array.ravel()[:: max(-(-array.size // SAMPLES), 1)].astype(np.float32)


def _references(bundle: Bundle, key: str) -> list[dict[str, Array]]:
    stored = bundle.reference(key) if key in bundle.manifest.reference else []
    if not stored:
        todo = "export it again, or get a bundle that was packed with its reference tensors"
        raise BundleError(f"check {bundle.path} at {key}", "it holds no reference tensors for that", todo)
    return stored


def _run(pipeline: Pipeline, chain: Chain, stored: Mapping[str, Array], canvas: Size) -> dict[str, Array]:
    images = pipeline.image_feed(stored["image"], canvas, canvas)
    feed = images | pipeline.vocabulary_feed(stored["text"], stored["overlap"])
    outputs = {spec.name for link in chain.order for spec in link.graph.outputs}
    return images | chain.run(feed, outputs).tensors


def _makers(chain: Chain) -> dict[str, str]:
    """Tensor → the graph that gives it, in the order of the chain; the network inputs first."""
    made = {spec.name: link.graph.name for link in chain.order for spec in link.graph.outputs}
    return {name: "preprocess" for name in sorted(chain.inputs)} | made


def _compare(
    place: tuple[str, int], makers: Mapping[str, str], found: Mapping[str, Array], stored: Mapping[str, Array]
) -> list[TensorCheck]:
    checks = []
    for name, graph in makers.items():
        wanted = stored.get(_PREFIX + name)
        if wanted is not None:
            checks.append(TensorCheck(*place, graph, name, *_difference(sample(found[name]), wanted)))
    return checks


def _difference(found: Array, wanted: Array) -> tuple[float, float]:
    """(cosine, largest absolute difference)."""
    if found.shape != wanted.shape or not np.isfinite(found).all():
        return -1.0, float("inf")
    a, b = found.astype(np.float64), wanted.astype(np.float64)
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    same = not a.any() and not b.any()
    cosine = 1.0 if same else float(a @ b) / lengths if lengths else 0.0
    return min(cosine, 1.0), float(np.abs(a - b).max())


UNDECIDED = 65535
"""In a stored label map: torch's two best scores are so close that rounding decides; such a pixel is not counted."""


def _agreement(pipeline: Pipeline, found: Mapping[str, Array], stored: Mapping[str, Array], canvas: Size) -> float:
    placement = Placement(canvas, canvas, canvas, True, None)
    logits, class_probs = pipeline.masks({name: found[name] for name in pipeline.wanted})
    wanted = stored["labels"]
    decided = wanted != UNDECIDED
    equal = compose(logits, class_probs, placement).labels[decided] == wanted[decided]
    return float(equal.mean()) if equal.size else 1.0
