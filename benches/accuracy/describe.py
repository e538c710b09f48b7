"""A result as plain JSON (docs/json.md) and as the lines a person reads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeseg.schema import size_text
from edgeseg.segmenter import Segmenter

from ..datasets import Dataset
from ..identity import engines_sha256, shown_path
from .count import Count, Int64
from .job import Options
from .result import Accuracy, Agreement
from .scores import CONVENTIONS, EVALUATORS, SUMMARY, Float64, Scores

_ALL_SHOWN, _LOWEST_SHOWN = 60, 20


def describe_run(segmenter: Segmenter, dataset: Dataset, options: Options) -> dict[str, Any]:
    """What was run on what."""
    rule = {"mode": options.resize} if options.resize else segmenter.bundle.manifest.recipe.get("resize")
    return {
        **describe_engine(segmenter),
        "dataset": {
            "name": dataset.name,
            "split": dataset.split or None,
            "layout": dataset.layout.name,
            "root": shown_path(dataset.root),
            "images": len(dataset),
            "images_published": dataset.published,
        },
        "resize": rule,
        "canvas": options.canvas and size_text(options.canvas),
        "threshold": options.threshold,
        **({"settings": dict(options.settings)} if options.settings else {}),
        **({"class_lists": shown_path(options.lists.path)} if options.lists else {}),
        **({} if options.top_k is None else {"top_k": options.top_k}),
    }


def describe_engine(segmenter: Segmenter) -> dict[str, Any]:
    """A bundle and what runs it."""
    plan = segmenter.plan
    where = {"backend": plan.backend.name, "device": plan.device_key, "precision": plan.precision}
    manifest = segmenter.bundle.manifest
    named = {
        "bundle": shown_path(segmenter.bundle.path),
        "model": manifest.name,
        "engines_sha256": engines_sha256(segmenter),
    }
    return {**named, **where}


def describe_accuracy(result: Accuracy) -> dict[str, Any]:
    """Scores by both conventions, every class, and the matrix that all of it follows from."""
    return {
        "convention": result.convention,
        "scores": {name: _summary(result.under(name).scores) for name in CONVENTIONS},
        "classes": _classes(result),
        "confusion": result.confusion.tolist(),
        **_counts(result.count, result.resumed),
    }


def describe_images(result: Accuracy, dataset: Dataset) -> dict[str, Any]:
    """Each image's counts, where they were kept; else nothing."""
    if result.count.images is None:
        return {}
    columns = ("classes", "labelled_pixels", "predicted_pixels", "correct_pixels")
    rows = zip(dataset.items, result.count.images, strict=True)
    return {
        "per_image": [{"key": item.key, **dict(zip(columns, table.T.tolist(), strict=True))} for item, table in rows]
    }


def describe_agreement(result: Agreement) -> dict[str, Any]:
    """The same for two engines."""
    matrix = result.count.matrix
    columns = (result.classes, matrix.sum(0), matrix.sum(1), np.diagonal(matrix), result.iou)
    keys = ("name", "pixels", "other_pixels", "both_pixels", "iou_percent")
    rows = [dict(zip(keys, map(_plain, row), strict=True)) for row in zip(*columns, strict=False)]
    return {
        "agreement_percent": _plain(result.agreement),
        "classes": [{"label": label, **row} for label, row in enumerate(rows)],
        "confusion": matrix.tolist(),
        **_counts(result.count, result.resumed),
    }


def accuracy_lines(result: Accuracy) -> Iterator[str]:
    """For people: the scores, then every class, or of many those that were labelled and found worst."""
    scores = result.scores
    yield f"convention: {EVALUATORS[result.convention]}"
    yield ", ".join(f"{word} {_percent(getattr(scores, key))}" for key, word in SUMMARY.items())
    shown, labelled = _shown(scores.accuracy, scores.iou), result.confusion.sum(1)
    width = max(len(result.classes[index]) for index in shown)
    for i in shown:
        numbers = f"IoU {_percent(scores.iou[i]):>7}  accuracy {_percent(scores.accuracy[i]):>7}"
        yield f"  {result.classes[i]:<{width}}  {numbers}  {labelled[i]:>12,} pixels"
    if len(shown) < len(result.classes):
        yield f"  (the {len(shown)} lowest of {len(result.classes)} classes; all are in the JSON)"
    if result.count.worst:
        yield f"worst image: {result.count.worst.key}, {_percent(100 * result.count.worst.share)} of its pixels right"


def agreement_lines(result: Agreement) -> Iterator[str]:
    """For people: one number, and the image where it is lowest."""
    yield f"{_percent(result.agreement)} of the pixels of {result.images} images have the same label"
    if result.count.worst:
        yield f"lowest: {result.count.worst.key}, {_percent(result.worst)}"


def notes(dataset: Dataset, whole: int, count: Count, resumed: int) -> Iterator[str]:
    """What a reader of the result must know about it."""
    if len(dataset) < whole:
        yield f"only the first {len(dataset)} of {whole} images were used (--limit)"
    if dataset.published is not None and whole < dataset.published:
        yield f"the data set holds {whole} of the {dataset.published} images that were published"
    if count.inexact:
        yield f"{count.inexact} of {count.done} images went in otherwise than the authors' code takes them"
    if resumed:
        yield f"{resumed} of {count.done} images had been counted by an earlier run"


def _shown(accuracy: Float64, iou: Float64) -> list[int]:
    """Indices of the classes to print."""
    if len(iou) <= _ALL_SHOWN:
        return list(range(len(iou)))
    labelled = np.flatnonzero(~np.isnan(accuracy))
    lowest: list[int] = labelled[np.argsort(iou[labelled], kind="stable")][:_LOWEST_SHOWN].tolist()
    return lowest or [0]


def _counts(count: Count, resumed: int) -> dict[str, Any]:
    worst = count.worst and {"key": count.worst.key, "correct_percent": 100 * count.worst.share}
    counted = {"images": count.done, "inexact_images": count.inexact, "resumed_images": resumed}
    return {**counted, "worst_image": worst}


def _classes(result: Accuracy) -> list[dict[str, Any]]:
    matrix: Int64 = result.confusion
    columns = {
        "name": result.classes,
        "seen": result.seen,
        "iou_percent": result.scores.iou,
        "accuracy_percent": result.scores.accuracy,
        "labelled_pixels": matrix.sum(1),
        "predicted_pixels": matrix.sum(0)[:-1],
        "correct_pixels": np.diagonal(matrix),
    }
    rows = zip(*columns.values(), strict=True)
    return [{"label": label, **dict(zip(columns, map(_plain, row), strict=True))} for label, row in enumerate(rows)]


def _summary(scores: Scores) -> dict[str, float | None]:
    return {f"{key}_percent": _plain(getattr(scores, key)) for key in SUMMARY}


def _plain(value: Any) -> Any:
    """A Python value; None for NaN, which JSON does not know."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and math.isnan(value) else value


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f} %"
