"""Runs a bundle's reference inputs through its engines and compares with torch: the check of a device without torch.

The chain runs from the image to the label map, so a graph is judged on the inputs it will really get. Tensors are
compared on the samples that the bundle holds (every n-th value), labels at every pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeseg.backends.base import Array, Session
from edgeseg.chain import Chain
from edgeseg.closeness import cosine_of_rows, difference, not_finite
from edgeseg.errors import BundleError, GateError
from edgeseg.pipelines import Pipeline, get_pipeline
from edgeseg.placement import Placement
from edgeseg.schema import Gate, GraphSpec, Size, size_text

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle

PREPROCESS = "preprocess"
"""Stands for a graph where a network input is compared."""

_PREFIX = "tensor:"
_STORED = {"image": ("u", 3), "labels": ("u", 2)}  # dtype kind, axes
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
        cosine: of the samples, 1 if both are zero; -1 if they cannot be compared. Of a tensor that the pipeline names
            in `by_row`, the one that three quarters of its rows reach.
        max_abs: largest absolute difference; -1 if they cannot be compared.
        problem: why they cannot be compared: a NaN or an infinity anywhere in the tensor, another shape; else empty.
        length: of the samples as a vector, in lengths of torch's: the cosine does not see a wrong scale.
    """

    canvas: str
    reference: int
    graph: str
    tensor: str
    cosine: float
    max_abs: float
    problem: str = ""
    length: float = 1.0

    @property
    def closeness(self) -> float:
        """The cosine, or what the length alone would lower it to in `2ab / (aa + bb)`, whichever is less."""
        return min(self.cosine, 2 * self.length / (1 + self.length**2))

    @property
    def sentence(self) -> str:
        """Which tensor of which graph, and how far it is from torch's."""
        scale = f", {self.length:.3g} times as long" if self.closeness < self.cosine else ""
        found = self.problem or f"cosine {self.cosine:.6f}{scale}"
        return f"{self.tensor} of {self.graph} at {self.canvas}: {found}"


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
    def bad_tensors(self) -> list[TensorCheck]:
        """The tensors that miss the limit, in the order of the chain."""
        return [check for check in self.tensors if not check.closeness >= self.limits.cosine]

    @property
    def furthest(self) -> TensorCheck | None:
        """Of the tensors that an engine gives, the one furthest from torch's."""
        made = [check for check in self.tensors if check.graph != PREPROCESS]
        return min(made, key=lambda check: check.closeness, default=None)

    @property
    def failures(self) -> list[str]:
        """One sentence per comparison that misses its limit, in the order of the chain; labels come last."""
        limit = f", at least {self.limits.cosine} wanted"
        bad = [check.sentence + ("" if check.problem else limit) for check in self.bad_tensors]
        hint = f"; {self.furthest.sentence} is furthest off" if self.furthest else ""
        return bad + [
            f"labels at {check.canvas}: {check.agreement:.2%} equal, {self.limits.agreement:.2%} wanted{hint}"
            for check in self.labels
            if not check.agreement >= self.limits.agreement
        ]

    def gate(self, graph: str, canvas: Size | None) -> Gate:
        """What one graph's engine made of it; every canvas counts for a graph that fits any."""
        mine = [c for c in self.tensors if c.graph == graph and (canvas is None or c.canvas == size_text(canvas))]
        agreements = [c.agreement for c in self.labels if canvas is None or c.canvas == size_text(canvas)]
        cosine = min((check.cosine for check in mine), default=-1.0)
        agreement = min(agreements, default=None)
        close = bool(mine) and all(check.closeness >= self.limits.cosine for check in mine)
        return Gate(close and (agreement is None or agreement >= self.limits.agreement), cosine, agreement)

    def require(self, asked: str, todo: str) -> None:
        """Raise a GateError that names the first graph which misses its limit, if any does."""
        if self.failures:
            more = f" (and {len(self.failures) - 1} more)" if len(self.failures) > 1 else ""
            raise GateError(asked, self.failures[0] + more, todo)


def limits(bundle: Bundle, *precisions: str) -> Limits:
    """The recipe's limits of a precision, or the documented defaults; of several precisions the widest."""
    chosen = [_limits(bundle.manifest.recipe.get("gate", {}), precision) for precision in precisions]
    return Limits(min(one.cosine for one in chosen), min(one.agreement for one in chosen))


def _limits(gate: Any, precision: str) -> Limits:
    """The recipe's `gate` is what a bundle says, so it may be anything."""
    rough = precision not in _DEFAULTS
    try:
        found = gate.get(precision) or (gate.get("int8") if rough else None)
        if found is None:
            return Limits(*_DEFAULTS.get(precision, _ROUGH))
        return Limits(float(found["cosine"]), float(found["agreement"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        wrong = "it does not give a cosine and an agreement for each precision"
        raise BundleError("read gate of the bundle's recipe", wrong, "make the bundle again") from None


def check_chains(
    bundle: Bundle, pipeline: Pipeline, chain: Callable[[Size], Chain], canvases: Iterable[Size], *precisions: str
) -> Report:
    """Run every reference input of the given canvases.

    Args:
        bundle: the opened bundle.
        pipeline: its family's.
        chain: gives the chain of a canvas; only one is in use at a time.
        canvases: those to check.
        *precisions: of the chain's graphs; of their limits the widest hold.

    Raises:
        BundleError: the bundle holds no reference for a canvas, or one with a NaN in it.
    """
    tensors: list[TensorCheck] = []
    labels: list[LabelCheck] = []
    for canvas in canvases:
        for number, stored in enumerate(references(bundle, size_text(canvas))):
            found = run_reference(pipeline, chain(canvas), stored, canvas)
            place = (size_text(canvas), number)
            tensors += _compare(place, _makers(chain(canvas)), found, stored, pipeline.by_row)
            labels.append(LabelCheck(*place, _agreement(pipeline, found, stored, canvas)))
    return Report(limits(bundle, *precisions), tuple(tensors), tuple(labels))


def check_text(bundle: Bundle, graph: GraphSpec, session: Session) -> Report:
    """Run the reference prompts through a session of the text encoder, which is closed afterwards."""
    tensors: list[TensorCheck] = []
    with closing(session):
        for number, stored in enumerate(references(bundle, "text")):
            missing = [spec.name for spec in graph.inputs if spec.name not in stored]
            if missing:
                found = f"reference {number} of the text encoder has no {missing[0]}"
                raise BundleError(f"check {bundle.path} with its reference tensors", found, "export it again")
            feed = {spec.name: session.upload(stored[spec.name]) for spec in graph.inputs}
            outputs = {name: session.download(tensor) for name, tensor in session.run(feed).items()}
            tensors += _compare(("any", number), dict.fromkeys(outputs, graph.name), outputs, stored)
    return Report(limits(bundle, graph.precision), tuple(tensors), ())


def check_graph(
    bundle: Bundle, graph: GraphSpec, found: Mapping[str, Array], place: tuple[str, int], stored: Mapping[str, Array]
) -> Report:
    """One graph by itself, given what it made of inputs that were torch's.

    Args:
        bundle: the opened bundle.
        graph: the graph.
        found: its outputs.
        place: canvas as text, and number of the reference input.
        stored: that reference input.
    """
    makers = {spec.name: graph.name for spec in graph.outputs}
    return Report(limits(bundle, graph.precision), tuple(_compare(place, makers, found, stored)), ())


def references(bundle: Bundle, key: str) -> list[dict[str, Array]]:
    """The reference inputs and tensors of a canvas or of the text encoder.

    Raises:
        BundleError: there are none, or one is not as documented, or holds a NaN or an infinity, with which nothing can
            be compared.
    """
    stored = bundle.reference(key) if key in bundle.manifest.reference else []
    if not stored:
        todo = "export it again, or get a bundle that was packed with its reference tensors"
        raise BundleError(f"check {bundle.path} at {key}", "it holds no reference tensors for that", todo)
    kinds = {} if key == "text" else _STORED | dict(get_pipeline(bundle.manifest).stored)
    for number, arrays in enumerate(stored):
        for name, problem in _problems(key, arrays, kinds):
            found = f"{name} of reference {number} at {key} {problem}"
            raise BundleError(f"check {bundle.path} with its reference tensors", found, "export it again")
    return stored


def _problems(key: str, arrays: Mapping[str, Array], kinds: Mapping[str, tuple[str, int]]) -> Iterator[tuple[str, str]]:
    """Array → what is wrong with it."""
    for name, (kind, axes) in kinds.items():
        array = arrays.get(name)
        if array is None or array.dtype.kind != kind or array.ndim != axes:
            yield name, "is missing, or has another type or other axes than it should"
        elif name in ("image", "labels") and size_text(array.shape[:2]) != key:
            yield name, f"has the shape {array.shape}"
    for name, array in arrays.items():
        if name.startswith(_PREFIX) and array.dtype.kind != "f":
            yield name, f"is {array.dtype}"
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            yield name, f"holds {not_finite(array)}"


def run_reference(pipeline: Pipeline, chain: Chain, stored: Mapping[str, Array], canvas: Size) -> dict[str, Array]:
    """Every tensor of the chain for one reference input, also what went in."""
    feed = pipeline.reference_feed(stored, canvas)
    outputs = {spec.name for link in chain.order for spec in link.graph.outputs}
    return feed | chain.run(feed, outputs).tensors


def _makers(chain: Chain) -> dict[str, str]:
    """Tensor → the graph that gives it, in the order of the chain; the network inputs first."""
    made = {spec.name: link.graph.name for link in chain.order for spec in link.graph.outputs}
    return {name: PREPROCESS for name in sorted(chain.inputs)} | made


def _compare(
    place: tuple[str, int],
    makers: Mapping[str, str],
    found: Mapping[str, Array],
    stored: Mapping[str, Array],
    by_row: tuple[str, ...] = (),
) -> list[TensorCheck]:
    checks = []
    for name, graph in makers.items():
        wanted = stored.get(_PREFIX + name)
        if wanted is not None:
            canvas, reference = place
            fields = difference(found[name], wanted)
            if name in by_row and "length" in fields:
                fields["cosine"] = cosine_of_rows(found[name], wanted)
            checks.append(TensorCheck(canvas, reference, graph, name, **fields))
    return checks


UNDECIDED = 65535
"""In a stored label map: torch's two best scores are so close that rounding decides; such a pixel is not counted."""


def _agreement(pipeline: Pipeline, found: Mapping[str, Array], stored: Mapping[str, Array], canvas: Size) -> float:
    wanted_tensors = {name: found[name] for name in pipeline.wanted}
    if not all(np.isfinite(array).all() for array in wanted_tensors.values()):
        return 0.0  # there is no label map
    placement = Placement(canvas, canvas, canvas, True, None)
    evidence = pipeline.evidence(wanted_tensors, (), placement)
    wanted = stored["labels"]
    decided = wanted != UNDECIDED
    equal = evidence.compose().labels[decided] == wanted[decided]
    return float(equal.mean()) if equal.size else 1.0
