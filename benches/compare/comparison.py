"""Compares two results of the same kind, as plain JSON (docs/json.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from edgeseg.errors import InputError

from ..report.result import Result
from ..report.surroundings import Difference, differences, settings
from .accuracies import compare_accuracies
from .bootstrap import CONFIDENCE_PERCENT, RESAMPLES, SEED
from .latencies import compare_latencies

_ENGINE = ("bundle", "model", "engines_sha256", "backend", "device", "precision")
_SHOWN = 4
_TASK = ("name", "split", "layout", "images")


def compare(a: Result, b: Result, *, across: bool = False) -> dict[str, Any]:
    """What B is to A.

    Args:
        a: a latency result, or an accuracy result.
        b: another of the same kind; of an accuracy, of the same data set.
        across: compare although machine, device, versions or power mode differ.

    Raises:
        InputError: they are of different kinds, of no kind that can be compared, of different data sets, or measured
            under different conditions without `across`.
    """
    asked = f"compare {a.file} and {b.file}"
    if a.kind != b.kind or a.kind not in ("latency", "accuracy"):
        found = f"they are results of {a.body['command']} ({a.kind}) and {b.body['command']} ({b.kind})"
        raise InputError(asked, found, "give two of bench latency, or two of bench accuracy with labels")
    found_apart = differences(a, b)
    if found_apart and not across:
        raise InputError(asked, _list(found_apart), "measure both alike, or give --across to compare them all the same")
    said = {
        "a": _describe(a),
        "b": _describe(b),
        "across": across,
        "differences": [asdict(one) for one in found_apart],
        "settings": [asdict(one) for one in settings(a, b)],
        "confidence_percent": CONFIDENCE_PERCENT,
        "resamples": RESAMPLES,
        "seed": SEED,
    }
    return said | (_latency(a, b, asked) if a.kind == "latency" else _accuracy(a, b, asked))


def _latency(a: Result, b: Result, asked: str) -> dict[str, Any]:
    rows, notes = compare_latencies(a.body, b.body)
    if not rows:
        raise InputError(asked, "; ".join(notes), "measure both with as many classes and images at once")
    return {"measurements": rows, "notes": notes}


def _accuracy(a: Result, b: Result, asked: str) -> dict[str, Any]:
    mine, theirs = _task(a.body), _task(b.body)
    if mine != theirs:
        names = [name for name in mine if mine[name] != theirs[name]]
        found = f"they are of different data sets: not the same {', '.join(names)}"
        raise InputError(asked, found, "score both on the same images and classes")
    rows, notes = compare_accuracies(a.body, b.body)
    return {"dataset": a.body["dataset"], "miou": rows, "notes": notes}


def _task(body: Mapping[str, Any]) -> dict[str, Any]:
    """What makes two mIoU comparable; with the labels' pixels, a data set that was exchanged is noticed too."""
    classes = [(row["name"], row["labelled_pixels"]) for row in body["classes"]]
    return {**{name: body["dataset"][name] for name in _TASK}, "classes and labelled pixels": classes}


def _describe(result: Result) -> dict[str, Any]:
    return {"file": result.file, **{name: result.body[name] for name in _ENGINE}}


def _list(found: Sequence[Difference]) -> str:
    more = f", and {len(found) - _SHOWN} more differences" if len(found) > _SHOWN else ""
    return "; ".join(one.words for one in found[:_SHOWN]) + more
