"""A study as JSON, as a table, and as a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeseg.atomic import atomic_write, storage_errors
from edgeseg.environment import envelope
from edgeseg.schema import to_json

from .budget import Found
from .plot import draw
from .ranking import Sensitivity
from .score import Score
from .study import Study

NAMES = ("sensitivity.json", "sensitivity.md", "sensitivity.svg")

Body = dict[str, Any]


def report_body(study: Study, classes: Mapping[str, Any]) -> Body:
    """The report as plain JSON, without the envelope.

    Args:
        study: what was found.
        classes: which classes were told apart, for the reader.
    """
    setup, all_macs = study.setup, sum(one.block.macs for one in study.ranked)
    return {
        "kind": "sensitivity",
        "precision": setup.kind,
        "model": setup.bundle.manifest.name,
        "images": to_json(setup.photos.note),
        "pilots": study.pilots,
        "classes": dict(classes),
        "labelled": setup.truth is not None,
        "fp32_miou_percent": _rounded(study.exact.miou_percent),
        "together": _score(study.together),
        "blocks": [_block(one, all_macs) for one in study.ranked],
        "budget": _budget(study, study.found) if study.found else None,
    }


def report_bytes(found: Body) -> bytes:
    """The JSON file's content. It goes into bundles, so equal reports are equal bytes: it has no date."""
    body = envelope("quantize", **found)
    del body["date"]
    return (json.dumps(body, indent=1, allow_nan=False) + "\n").encode()


def write_report(folder: Path, found: Body) -> None:
    """Write the three files into a folder, which is made if it is missing. Raises StorageError."""
    with storage_errors(f"write the report {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    texts = (report_bytes(found), markdown(found).encode(), draw(found).encode())
    for name, text in zip(NAMES, texts, strict=True):
        with atomic_write(folder / name) as temporary:
            temporary.write_bytes(text)


def markdown(found: Body) -> str:
    """The report for people."""
    images, together = found["images"], found["together"]
    lines = [
        f"# {found['model']}: what {found['precision']} changes, block by block",
        "",
        f"Every block was put into {found['precision']} by itself, everything else in fp32, on {found['pilots']} of "
        f"{images['count']} images ({images['source']}, digest {images['digest'][:12]}). With all blocks together "
        f"{together['different_percent']:.3f} % of the labels differ from fp32's.",
        "",
        "| block | MACs | labels that differ | relative error | cosine | of |",
        "|---|--:|--:|--:|--:|---|",
        *(_table_row(one) for one in found["blocks"]),
    ]
    return "\n".join([*lines, *_budget_lines(found)]) + "\n"


def _table_row(one: Body) -> str:
    relative = "not finite" if one["relative_error"] is None else f"{one['relative_error']:.5f}"
    macs = f"{one['macs_percent']:.1f} %"
    cells = (one["block"], macs, f"{one['different_percent']:.3f} %", relative, f"{one['cosine']:.6f}", one["tensor"])
    return f"| {' | '.join(map(str, cells))} |"


def _budget_lines(found: Body) -> list[str]:
    budget = found["budget"]
    if budget is None:
        return []
    lifted = f"- fp16 in place of {found['precision']}: {', '.join(budget['lifted']) or 'nothing'}"
    raised = [] if found["precision"] == "fp16" else [lifted]
    lines = [
        "",
        "## Budget",
        "",
        f"Allowed: {budget['allowed']:g} {budget['unit'].replace('_', ' ')}. Reached: {budget['reached']:.3f}, on all "
        f"{found['images']['count']} images, in {len(budget['tries'])} tries.",
        "",
        *raised,
        f"- in fp32: {', '.join(budget['single']) or 'nothing'}",
        f"- MACs that this takes away from {found['precision']}: {budget['lifted_macs_percent']:.1f} %",
    ]
    if found["fp32_miou_percent"] is not None:
        lines.append(f"- mIoU: {budget['typed']['miou_percent']:.2f} %, fp32 {found['fp32_miou_percent']:.2f} %")
    return lines


def _block(one: Sensitivity, all_macs: int) -> Body:
    name, error = one.score.worst
    return {
        "block": one.block.key,
        "layers": one.block.layers,
        "macs": one.block.macs,
        "macs_percent": _rounded(100 * one.block.macs / max(all_macs, 1)),
        "different_percent": _rounded(one.score.different_percent),
        "tensor": name,
        "cosine": _rounded(error.cosine),
        "relative_error": _rounded(error.relative),
    }


def _score(score: Score) -> Body:
    tensors = {
        name: {"cosine": _rounded(error.cosine), "relative_error": _rounded(error.relative)}
        for name, error in score.tensors.items()
    }
    return {
        "different_percent": _rounded(score.different_percent),
        "miou_percent": _rounded(score.miou_percent),
        "tensors": tensors,
    }


def _budget(study: Study, found: Found) -> Body:
    labelled = study.exact.miou_percent is not None
    scores = [score for score in (found.plain, found.typed) if score is not None]
    return {
        "allowed": study.budget,
        "unit": "points_of_miou" if labelled else "percent_of_labels",
        "reached": _rounded(max(_loss(study, score) for score in scores)),
        "lifted": list(found.lifted),
        "single": list(found.single),
        "lifted_macs": found.lifted_macs,
        "lifted_macs_percent": _rounded(100 * found.lifted_macs / max(found.all_macs, 1)),
        "plain": _score(found.plain) if found.plain else None,
        "typed": _score(found.typed),
        "tries": [asdict(one) for one in found.tries],
    }


def _loss(study: Study, score: Score) -> float:
    if score.miou_percent is None or study.exact.miou_percent is None:
        return score.different_percent
    return study.exact.miou_percent - score.miou_percent


def _rounded(value: float | None) -> float | None:
    """Seven decimals: equal on every machine that computes the same labels."""
    return None if value is None else round(value, 7)
