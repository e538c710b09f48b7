"""Runs of one image: from its file to a label map on disk, as `edgeseg run` does it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeseg.outputs import OutputOptions, write_outputs
from edgeseg.segmentation import Segmentation
from edgeseg.segmenter import Segmenter
from edgeseg.vocabulary import Vocabulary

from .effort import SEGMENT, TOTAL, Stages
from .spans import HOST_CLOCK, Spans

_FILES = OutputOptions(overlay=False)
_INCLUDED = {
    TOTAL: "from the image file to the label map (PNG) and JSON on disk; class names were encoded before",
    SEGMENT: "from the image in memory to the label map in memory: end to end without read and write",
    "read": "open, decode and orient the image file, which the system has cached by then",
    "preprocess": "choose the canvas, resize, normalise, pad: the networks' inputs as float32",
    "graphs": "all engines, from the first start to the last end",
    "compose": "masks to the image's size, scores, the label of every pixel, areas",
    "write": "label map (PNG) and JSON to the temporary folder, each synced to the disk; no overlay",
    "other": "all that lies between the stages: checks of the results, look-up of the class list",
}
_COPIES = {
    "upload": "inputs to the GPU's memory; the last of them may still be on its way when the first engine starts",
    "download": "masks and class probabilities from the GPU's memory",
}
_NO_COPIES = "nothing: engines and program share the memory"
_GRAPH_ALONE = "the engine"
_GRAPH_OVERLAPS = "the engine on its stream; it may overlap others, so the graphs need not add up"


@dataclass
class ImageRuns:
    """See the module's text.

    Args:
        segmenter: opened; its observer is replaced.
        image: the file.
        vocabulary: the classes.
        folder: where results go.
        options: `resize`, `canvas`: see `Segmenter`.
    """

    segmenter: Segmenter
    image: Path
    vocabulary: Vocabulary
    folder: Path
    options: dict[str, Any] = field(default_factory=dict)
    spans: Spans = field(default_factory=Spans)
    last: Segmentation | None = None

    def __post_init__(self) -> None:
        self.segmenter.observer = self.spans

    def once(self) -> Stages:
        """One run; the stages that are no part of another add up to the total."""
        start_s = time.perf_counter()
        result = self.last = self.segmenter(self.image, self.vocabulary, **self.options)
        composed_s = time.perf_counter()
        write_outputs(result, self.folder, "result", _FILES)
        end_s = time.perf_counter()
        timed, steps = result.timings_ms, self.spans.take()
        stages = {"read": timed["read"], "preprocess": timed["preprocess"], **steps, "compose": timed["compose"]}
        stages["write"] = (end_s - composed_s) * 1e3
        whole = [name for name in stages if name not in self.spans.clocks]
        total = (end_s - start_s) * 1e3
        stages["other"] = total - sum(stages[name] for name in whole)
        return {TOTAL: total, SEGMENT: (composed_s - start_s) * 1e3 - timed["read"], **stages}

    def clock(self, stage: str) -> str:
        """What timed a stage."""
        return self.spans.clocks.get(stage, HOST_CLOCK)

    def part_of(self, stage: str) -> str | None:
        """The stage that this one is a part of."""
        return "graphs" if stage in self.spans.clocks else None

    def included(self, stage: str, *, on_gpu: bool, in_order: bool) -> str:
        """What a stage's time holds, in words."""
        if stage in self.spans.clocks:
            return _GRAPH_ALONE if in_order or not on_gpu else _GRAPH_OVERLAPS
        if stage in _COPIES:
            return _COPIES[stage] if on_gpu else _NO_COPIES
        return _INCLUDED[stage]
