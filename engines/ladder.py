"""What a repair tries on one graph, cheapest first.

1. The other form of attention, which no compiler fuses: the fused kernel may be what is wrong.
2. Normalisation in fp32: its sums leave fp16's range first.
3. bfloat16, where the device has it: fp32's range in the place of fp16's.
4. The fp32 master's own nodes in the place of as few blocks as will do, those first that add most to the error; at last
   of the whole graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx

from edgeseg.bundle import Bundle
from edgeseg.schema import GraphSpec

from .blame import Blamed, files_of, master_of
from .compiler import Compiler
from .lifting import blocks_of, lift
from .surgery import norms_in_fp32, to_bf16, turn_softmax

Rewrite = Callable[[onnx.ModelProto], int]


@dataclass(frozen=True)
class Rung:
    """One thing to try: what it is in words, and what does it to a graph, on whatever canvas that is."""

    change: str
    rewrite: Callable[[GraphSpec], Rewrite]


def rungs(compiler: Compiler, bundle: Bundle, spec: GraphSpec) -> Iterator[Rung]:
    """The rungs for a graph that leave it in its precision, one to try after the other."""
    yield Rung("attention that is not fused", lambda _: turn_softmax)
    yield Rung("normalisation in fp32", lambda _: norms_in_fp32)
    if compiler.bf16:
        yield Rung("bf16", lambda spec: lambda model: to_bf16(model, files_of(bundle, spec)))


def lifts(bundle: Bundle, spec: GraphSpec, blame: Callable[[], list[Blamed]]) -> list[Rung]:
    """Rungs with one block more of the fp32 master each, in the order that `blame` gives; the last is all of it.

    None at all if the bundle has no master; `blame` is not asked then.
    """
    everything = whole(bundle, spec)
    if everything is None:
        return []
    names = [blamed.block for blamed in blame()]
    return [*(_lifted(bundle, names, count) for count in range(1, len(names) + 1)), everything]


def whole(bundle: Bundle, spec: GraphSpec) -> Rung | None:
    """The rung that is the fp32 master, if the bundle has it."""
    if master_of(bundle, spec) is None:
        return None
    return Rung("the whole graph in fp32", lambda spec: lambda model: _lift(bundle, spec, model, None))


def _lifted(bundle: Bundle, names: list[str], count: int) -> Rung:
    chosen = frozenset(names[:count])
    change = f"{count} of {len(names)} blocks in fp32: {', '.join(names[:count])}"
    return Rung(change, lambda spec: lambda model: _lift(bundle, spec, model, chosen))


def fewest(most: int, passes: Callable[[int], bool]) -> int | None:
    """The smallest of 1 to `most` that passes, where what is larger passes too; None if even `most` does not.

    Asks for 1, 2, 4, 8 and so on until one passes, and halves what is left: one bad block is found at once, and among
    25 counts at most ten are asked for.
    """
    low, high = 0, min(1, most)
    while high > low and not passes(high):
        low, high = high, min(2 * high, most)
    if high == low:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


def _lift(bundle: Bundle, spec: GraphSpec, model: onnx.ModelProto, chosen: frozenset[str] | None) -> int:
    """These blocks, or with None everything, from the master of the graph's own canvas: elsewhere its shapes differ."""
    master = master_of(bundle, spec)
    if master is None:
        return 0
    exact = onnx.load(bundle.graph_files(master), load_external_data=False)
    blocks = blocks_of(exact)
    return lift(
        model, exact, files_of(bundle, master), lambda node: chosen is None or blocks.get(node.output[0]) in chosen
    )
