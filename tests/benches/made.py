"""Results as the verbs write them, made by hand: small, and with any value that a test wants."""

import json
from pathlib import Path

ENVIRONMENT = {
    "edgeseg": "0.1.0",
    "python": "3.11.7",
    "platform": "Linux-6.1-aarch64",
    "machine": "aarch64",
    "board": "Orin Nano",
    "cpu": "ARMv8",
    "cores": 6,
    "packages": {"numpy": "2.0.0"},
}
CLASSES = ("road", "car", "pole")
STAGES = (("read", None), ("graphs", None), ("sam", "graphs"), ("compose", None))


def engine(name="a", precision="fp16", backend="tensorrt"):
    """What ran; results of one name are of the same engines."""
    about = {"bundle": f"{name}.bundle", "model": f"model-{name}", "engines_sha256": name * 64}
    return {**about, "backend": backend, "device": "sm87-trt10.3.0", "precision": precision}


def enveloped(command, *parts, **changes):
    body = {"schema": 1, "command": command, "environment": ENVIRONMENT, "command_line": f"edgeseg {command} it"}
    for part in parts:
        body |= part
    return body | changes


def stage(name, samples_ms, part_of=None):
    middle = sorted(samples_ms)[len(samples_ms) // 2]
    numbers = {f"{key}_ms": middle for key in ("p50", "p50_low", "p50_high", "mean")}
    numbers |= {"p95_ms": max(samples_ms), "p99_ms": max(samples_ms), "min_ms": min(samples_ms)}
    said = {"name": name, "part_of": part_of, "included": f"all of {name}", "clock": "monotonic clock"}
    return {**said, **numbers, "samples_ms": list(samples_ms)}


def measurement(samples_ms, classes=3, batch=1, reasons=()):
    shares = [(name, part_of, index + 1) for index, (name, part_of) in enumerate(STAGES)]
    total = "end_to_end" if batch == 1 else "chain"
    return {
        "classes": classes,
        "batch": batch,
        "totals": [stage(total, samples_ms)],
        "stages": [stage(name, [value * share / 10 for value in samples_ms], of) for name, of, share in shares],
        "runs": len(samples_ms),
        "memory": {"host_peak_bytes": 3 << 20, "host_since": "the end of the warm-up", "device_peak_bytes": None},
        "conditions": {"power_mode": "15W", "governors": ["performance"], "gpu": None, "readings": []},
        "trusted": not reasons,
        "reasons": list(reasons),
        "notes": [],
    }


def latency(name="a", samples_ms=(10.0, 11.0, 12.0), **changes):
    rows = changes.pop("measurements", None) or [measurement(samples_ms)]
    sizes = {"size": "480x640", "resized": "480x640", "canvas": changes.pop("canvas", "480x640")}
    about = {"device_name": "Orin", "sdk": {"tensorrt": "10.3.0"}, "threads": None, "in_order": False}
    rest = {"stand_in_classes": True, "image": sizes, "measurements": rows}
    return enveloped("bench latency", engine(name), about, rest, **changes)


def class_row(name, iou, labelled=100):
    right = round((iou or 0) / 100 * labelled)
    scores = {"iou_percent": iou, "accuracy_percent": iou}
    pixels = {"labelled_pixels": labelled, "predicted_pixels": right, "correct_pixels": right}
    return {"name": name, "seen": True, **scores, **pixels}


def accuracy(name="a", miou=40.0, **changes):
    dataset = {"name": "camvid-11", "split": "test", "layout": "folders", "root": "CamVid"}
    dataset |= {"images": 4, "images_published": 4} | changes.pop("dataset", {})
    summary = ("pixel_accuracy", "mean_accuracy", "fwiou", "seen_miou", "unseen_miou")
    scores = {"miou_percent": miou, **{f"{key}_percent": None for key in summary}}
    counted = {"images": 4, "inexact_images": 0, "worst_image": {"key": "three", "correct_percent": 12.5}, "notes": []}
    rest = {
        "dataset": dataset,
        "resize": {"mode": "short-side", "short": 640},
        "canvas": None,
        "threshold": None,
        "prompts": list(CLASSES),
        "convention": "detectron2",
        "scores": {"detectron2": scores, "mmseg": scores},
        "classes": [class_row(name, miou) for name in CLASSES],
    }
    return enveloped("bench accuracy", engine(name), counted, rest, **changes)


def agreement(name="a", **changes):
    body = accuracy(name)
    for key in ("scores", "convention", "prompts"):
        del body[key]
    return body | {"against": engine("b"), "agreement_percent": 99.5} | changes


def graph_row(name, **measured):
    macs = {"total": 2_000_000_000, "activations": 500_000_000, "positions": 0}
    counted = {"parameters": 3_000_000, "weights_bytes": 6 << 20, "macs": macs, "flop_per_byte": 20.0}
    return {"graph": name, **counted, **measured}


def count(name="a", **changes):
    about = {"bundle": f"{name}.bundle", "model": f"model-{name}", "precision": "fp16", "canvas": "480x640"}
    return enveloped("bench model", about, {"classes": 150, "notes": [], "graphs": [graph_row("sam")]}, **changes)


def model(name="a", **changes):
    measured = {"latency_ms": 5.0, "least_ms": 1.0, "roofline_percent": 20.0, "bound": "memory"}
    nothing = dict.fromkeys(measured)
    rows = [graph_row("sam", **measured), graph_row("text", **nothing)]
    roofline = {"macs_per_s": 1e12, "bytes_per_s": 1e11, "how": "a product and a copy"}
    verdict = {"trusted": True, "reasons": [], "notes": []}
    return count(name) | engine(name) | {"graphs": rows, "roofline": roofline} | verdict | changes


def demo(**changes):
    row = {"precision": "fp16", "size_bytes": 1 << 20, "latency_s": 0.5, "agreement": 0.99}
    return enveloped("demo", {"bundle": "a.bundle", "precisions": [row], "compiled": "nothing"}, **changes)


def write(folder: Path, *bodies) -> list[Path]:
    """A file for each, numbered from 1."""
    paths = [folder / f"{number}.json" for number in range(1, len(bodies) + 1)]
    for path, body in zip(paths, bodies, strict=True):
        path.write_text(json.dumps(body))
    return paths
