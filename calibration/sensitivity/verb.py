"""What `edgeseg quantize` does with --report, --budget and --precision mixed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from edgeseg.backends import get_backend
from edgeseg.bundle import Bundle
from edgeseg.cli.options import ClassRequest, resolve_classes
from edgeseg.errors import InputError
from edgeseg.pipelines import get_pipeline
from edgeseg.vocabulary.classes import ClassList, class_list
from edgeseg.vocabulary.cleaning import clean
from edgeseg.vocabulary.maker import VocabularyMaker
from edgeseg.vocabulary.recipe import TextRecipe

from ..makers import Quantized
from ..photos import Photos
from ..quantize import Watch, add_graphs, quantize_bundle, quantize_calibrated
from ..ranges import Ranges
from .maker import Mixtures
from .options import KIND, MIXED, TIME_LIMIT_MINUTES, Question
from .report import Body, report_body, report_bytes, write_report
from .study import Study, study
from .trials import Setup
from .truth import Truth

__all__ = ["add_studied", "measure", "write_report"]

REPORT_FILE = "reports/mixed.json"
"""Where a bundle says why its precision "mixed" is what it is."""

Bar = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Opens a progress bar of a title."""


def measure(
    bundle: Bundle, precision: str, ranges: Ranges, photos: Photos, *, question: Question, bar: Bar
) -> tuple[Study, Body]:
    """The study that the options ask for, and its report.

    Raises:
        InputError: the class options or the labels cannot be used. BuildError: see `study.study`.
    """
    kind, budget = (KIND if precision == MIXED else precision), question.allowed(precision)
    embeddings, overlap, classes = _classes(bundle, question, bar)
    truth = Truth(question.labels, photos, len(embeddings)) if question.labels else None
    setup = Setup(bundle, kind, ranges, photos, embeddings, overlap, truth)
    minutes = TIME_LIMIT_MINUTES if question.time_limit is None else question.time_limit
    with bar("measure blocks" if budget is None else "search") as report:
        found = study(setup, report, budget, 60 * minutes)
    return found, report_body(found, classes)


def add_studied(study: Study, body: Body, watch: Watch) -> list[Quantized]:
    """Add the graphs that were measured to their bundle: of the mixture that was found, else of the precision."""
    setup = study.setup
    if study.found is not None:
        maker = Mixtures(setup.bundle, setup.kind, setup.ranges, study.found.mixture)
        return add_graphs(setup.bundle, maker, watch, setup.ranges, {REPORT_FILE: report_bytes(body)})
    if setup.kind == "fp16" or setup.ranges is None:
        return quantize_bundle(setup.bundle, watch, setup.ranges)
    return quantize_calibrated(setup.bundle, setup.kind, setup.ranges, watch)


def _classes(bundle: Bundle, question: Question, bar: Bar) -> tuple[Any, Any, dict[str, Any]]:
    """Embeddings (C, D), overlap (C,), and what they are: the classes asked for, else those of the training.

    A bundle that cannot encode these has the classes of its reference tensors.
    """
    if "text" not in get_pipeline(bundle.manifest).stored:
        found = "its classes are no embeddings, so there is nothing to compare its blocks on"
        raise InputError(f"measure {bundle.path}", found, "leave out --report, --budget and mixed")
    recipe = bundle.manifest.recipe
    given = bool(question.classes)
    if question.labels and not given:
        found = "nothing says what the values in them mean"
        raise InputError(f"use the labels {question.labels}", found, "name the classes with --classes, in that order")
    encodes = any(graph.name == "text" for graph in bundle.manifest.graphs)
    if not given and not (recipe.get("training_classes") and encodes):
        return _reference_classes(bundle)
    request = resolve_classes(**question.classes) if given else ClassRequest(_training_classes(bundle), {})
    return _given_classes(bundle, request, "given" if given else "training", bar)


def _given_classes(bundle: Bundle, request: ClassRequest, source: str, bar: Bar) -> tuple[Any, Any, dict[str, Any]]:
    backend = get_backend("onnxruntime")
    maker = VocabularyMaker(bundle, lambda graph, path: backend.open(path, graph))
    with bar("encode classes") as report:
        made = request.vocabulary(maker, report)
    note = {"source": source, "count": len(made.names), "names": list(made.names)}
    return np.asarray(made.embeddings, np.float32), np.asarray(made.overlap, np.float32), note


def _training_classes(bundle: Bundle) -> ClassList:
    """Those that a text encoder tells apart. Raises BundleError."""
    names = TextRecipe.read(bundle.manifest.recipe).training
    return class_list(list({clean(name): name for name in names}.values()))


def _reference_classes(bundle: Bundle) -> tuple[Any, Any, dict[str, Any]]:
    key = next((key for key in bundle.manifest.reference if "x" in key), None)
    if key is None:
        found = "it names no training classes that it can encode, and holds no reference tensors"
        raise InputError(f"measure {bundle.path}", found, "name some classes with --classes")
    stored = bundle.reference(key)[0]
    return stored["text"], stored["overlap"], {"source": "reference", "count": len(stored["text"])}
