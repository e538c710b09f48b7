"""What a report needs of each kind of result, in the notation of `shape`. docs/json.md describes all that they hold."""

from __future__ import annotations

from typing import Any

from ..accuracy.scores import CONVENTIONS, SUMMARY

SCHEMA = 1

_TEXT, _NUMBER = (str, None), (float, None)

ENVIRONMENT = {
    "edgeseg": str,
    "python": str,
    "platform": str,
    "machine": str,
    "board": _TEXT,
    "cpu": str,
    "cores": int,
    "packages": {str: str},
}
_ENVELOPE = {"command": str, "environment": ENVIRONMENT}
_RUN = {**_ENVELOPE, "command_line": _TEXT}
_ENGINE = {"bundle": str, "model": str, "engines_sha256": str, "backend": str, "device": str, "precision": str}
_VERDICT = {"trusted": bool, "reasons": [str], "notes": [str]}

_STAGE = {
    "name": str,
    "part_of": _TEXT,
    "included": str,
    "clock": str,
    **{f"{number}_ms": float for number in ("p50", "p95", "p99", "mean", "min", "p50_low", "p50_high")},
    "samples_ms": [float, ...],
}
_CONDITIONS = {
    "power_mode": _TEXT,
    "governors": [str],
    "gpu": ({"power_limit_w": _NUMBER}, None),
    "readings": [{"kind": str, "of": str, "least": float, "mean": float, "most": float}],
}
_MEASUREMENT = {
    "classes": int,
    "batch": int,
    "totals": [_STAGE, ...],
    "stages": [_STAGE],
    "runs": int,
    "memory": {"host_peak_bytes": (int, None), "host_since": str, "device_peak_bytes": (int, None)},
    "conditions": _CONDITIONS,
    **_VERDICT,
}
_LATENCY = {
    **_RUN,
    **_ENGINE,
    "device_name": str,
    "sdk": {str: str},
    "threads": (int, None),
    "in_order": bool,
    "stand_in_classes": bool,
    "image": {"size": str, "resized": str, "canvas": str},
    "measurements": [_MEASUREMENT, ...],
}

_COUNTED = {
    "dataset": {
        "name": str,
        "split": _TEXT,
        "layout": str,
        "root": str,
        "images": int,
        "images_published": (int, None),
    },
    "resize": ({"mode": str}, None),
    "canvas": _TEXT,
    "threshold": _NUMBER,
    "images": int,
    "inexact_images": int,
    "worst_image": ({"key": str, "correct_percent": float}, None),
    "notes": [str],
}
_SCORES = {f"{name}_percent": _NUMBER for name in SUMMARY}
_CLASS = {
    "name": str,
    "seen": (bool, None),
    "iou_percent": _NUMBER,
    "accuracy_percent": _NUMBER,
    "labelled_pixels": int,
    "predicted_pixels": int,
    "correct_pixels": int,
}
_ACCURACY = {
    **_RUN,
    **_ENGINE,
    **_COUNTED,
    "prompts": [str],
    "convention": str,
    "scores": {name: _SCORES for name in CONVENTIONS},
    "classes": [_CLASS, ...],
}
_AGREEMENT = {**_RUN, **_ENGINE, **_COUNTED, "against": _ENGINE, "agreement_percent": _NUMBER}

_GRAPH = {
    "graph": str,
    "parameters": int,
    "weights_bytes": int,
    "macs": {"total": int, "activations": int, "positions": int},
    "flop_per_byte": float,
}
_GRAPH_MEASURED = {**_GRAPH, "latency_ms": _NUMBER, "least_ms": _NUMBER, "roofline_percent": _NUMBER, "bound": _TEXT}
_MODEL = {**_RUN, "bundle": str, "model": str, "precision": str, "canvas": str, "classes": int, "notes": [str]}
_ROOFLINE = {"macs_per_s": float, "bytes_per_s": float, "how": str}

_DEMO_ROW = {"precision": str, "size_bytes": int, "latency_s": float, "agreement": float}
_COMPARED = {"file": str, **_ENGINE}
_RATIO = {
    "name": str,
    "part_of": _TEXT,
    "a_p50_ms": float,
    "b_p50_ms": float,
    "ratio": _NUMBER,
    "ratio_low": _NUMBER,
    "ratio_high": _NUMBER,
    "verdict": str,
}
_COMPARE = {
    **_RUN,
    "a": _COMPARED,
    "b": _COMPARED,
    "across": bool,
    "differences": [{"what": str, "a": str, "b": str}],
    "notes": [str],
}
_DIFFERENCE = {f"{name}_percent": _NUMBER for name in ("a_miou", "b_miou", "difference", "low", "high")}

IMAGES = [{"key": str, "classes": [int], **{f"{name}_pixels": [int] for name in ("labelled", "predicted", "correct")}}]
"""Of an accuracy's `per_image`, which may be missing."""

ASKED = {"settings": {str: str}, "class_lists": str, "top_k": int}
"""Of an accuracy or a latency; each may be missing."""

FORMS: dict[str, Any] = {
    "accuracy": _ACCURACY,
    "agreement": _AGREEMENT,
    "latency": _LATENCY,
    "model": {**_RUN, **_ENGINE, **_MODEL, **_VERDICT, "roofline": _ROOFLINE, "graphs": [_GRAPH_MEASURED, ...]},
    "count": {**_MODEL, "graphs": [_GRAPH, ...]},
    "demo": {**_ENVELOPE, "bundle": str, "precisions": [_DEMO_ROW, ...], "compiled": str},
    "latency comparison": {**_COMPARE, "measurements": [{"classes": int, "batch": int, "stages": [_RATIO]}]},
    "accuracy comparison": {**_COMPARE, "miou": {name: {**_DIFFERENCE, "verdict": str} for name in CONVENTIONS}},
}
"""Kind of result → its form."""


def kind_of(body: dict[str, Any]) -> str | None:
    """Which kind a result is; None if a report knows nothing of its command."""
    command = body["command"]
    if command == "bench accuracy":
        return "agreement" if "against" in body else "accuracy"
    if command == "bench model":
        return "model" if "roofline" in body else "count"
    if command == "bench compare":
        return "accuracy comparison" if "miou" in body else "latency comparison"
    return {"bench latency": "latency", "demo": "demo"}.get(command)
