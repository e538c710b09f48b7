"""A study in a few words, for the terminal."""

from __future__ import annotations

from typing import Any

NAMED = 5


def summary(body: dict[str, Any]) -> str:
    """Lines to append to what `edgeseg quantize` prints. `body`: of the report."""
    together, blocks = body["together"]["different_percent"], body["blocks"][:NAMED]
    worst = ", ".join(f"{one['block']} {one['different_percent']:.3g} %" for one in blocks)
    lines = [f"labels that differ with all blocks in {body['precision']}: {together:.3g} %; most from {worst}"]
    if body["budget"]:
        lines.append(_budget(body))
    return "".join(f"\n  {line}" for line in lines)


def _budget(body: dict[str, Any]) -> str:
    budget = body["budget"]
    unit = "% of the labels" if budget["unit"] == "percent_of_labels" else "points of mIoU"
    raised = [f"{', '.join(budget[name])} {how}" for name, how in _HOW.items() if budget[name]]
    share = f", {budget['lifted_macs_percent']:.1f} % of the MACs" if budget["lifted"] else ""
    reached = f"{budget['reached']:.3g} {unit}, {budget['allowed']:g} allowed"
    return f"{'; '.join(raised) or 'nothing was raised'}{share}: {reached}"


_HOW = {"lifted": "not quantized", "single": "in fp32"}
