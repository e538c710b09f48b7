"""The rounds of PnP-OVSS on an image: the graphs of one round, run as often as is set, what they carry kept in place.

The image goes to where the engines run once. Between two rounds nothing comes back, unless rounds may stop early: then
the class maps do, a few KB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeseg.backends.base import Array
from edgeseg.chain import Steps
from edgeseg.errors import BackendError, InputError
from edgeseg.pipelines.pnp_captions import Captions, Words, captions, filtered
from edgeseg.pipelines.pnp_settings import Settings
from edgeseg.schema import GraphSpec

Float32 = npt.NDArray[np.float32]

VIT, MATCH, SCORE = "blip_vit", "blip_itm_cam", "score"
_CARRIED = {"keep_next": "keep", "class_maps_next": "class_maps"}


@dataclass(frozen=True, eq=False)
class Looked:
    """What the rounds gave.

    Attributes:
        maps: (K, L) float32, the rounds' sum. `kept`: (K,) indices of the classes.
        rounds: how many were run.
    """

    maps: Float32
    kept: npt.NDArray[np.intp]
    rounds: int


@dataclass
class Rounds:
    """See the module's text.

    Args:
        steps: of the chain.
        image: `pixels` and `keep`, as the pipeline makes them.
        words: the classes.
        settings: of the image.
    """

    steps: Steps
    image: Mapping[str, Array]
    words: Words
    settings: Settings
    _tensors: dict[str, Any] = field(default_factory=dict)

    def run(self) -> Looked:
        """All of it. Raises InputError for classes that the graphs do not take, BackendError for what is no number."""
        self._tensors = self.steps.upload(self.image)
        self._tensors |= self.steps.run(VIT, self._tensors)  # the first round's, which the filter reads too
        kept = self._kept()
        names = [self.words.names[i] for i in kept]
        made = captions(self.words, names, self._tokens(), self.settings.last)
        self._check(made)
        self._tensors |= self.steps.upload(
            made.feed() | start(made.pieces.shape[1], self.image["keep"].size, self.settings)
        )
        maps, rounds = self._rounds()
        if not np.isfinite(maps).all():
            found = "the class maps hold values that are not finite numbers"
            raise BackendError("label the image", found, "check the engines with `edgeseg verify`")
        return Looked(maps, np.array(kept, np.intp), rounds)

    def _kept(self) -> list[int]:
        wanted, names = self.settings.only, self.words.names
        if wanted is not None:
            unknown = [name for name in wanted if name not in names]
            if unknown or not wanted:
                found = f"{unknown[0]!r} is none of the classes" if unknown else "it names no class"
                raise InputError("use the list of classes of this image", found, "spell it as in the class list")
            return [i for i, name in enumerate(names) if name in wanted]
        if self.settings.filter == "none" or len(names) == 1:
            return list(range(len(names)))
        batch = self._most(MATCH, "B")
        return filtered(self.words, self._probability, self._tokens(), self.settings.match, batch=batch)

    def _probability(self, made: Captions) -> Float32:
        """Of "match", for every caption."""
        feed = self._tensors | self.steps.upload({"input_ids": made.ids, "attn_mask": made.mask})
        logits = self.steps.download(self.steps.run(MATCH, feed)["itm_logits"]).astype(np.float32)
        return np.asarray(1 / (1 + np.exp(np.clip(logits[:, 0] - logits[:, 1], -80, 80))), np.float32)

    def _rounds(self) -> tuple[Float32, int]:
        before: npt.NDArray[np.intp] | None = None
        done = 0
        for done, weight in enumerate(self.settings.weights[: self.settings.rounds], start=1):
            if done > 1:
                self._tensors |= self.steps.run(VIT, self._tensors)
            self._tensors |= self.steps.run(MATCH, self._tensors)
            self._tensors |= self.steps.upload({"weight": np.array([weight], np.float32)})
            made = self.steps.run(SCORE, self._tensors)
            self._tensors |= {name: made[output] for output, name in _CARRIED.items()}
            if self.settings.early_stop:
                labels = self.steps.download(self._tensors["class_maps"]).argmax(0)
                if before is not None and (labels == before).mean() >= self.settings.early_stop:
                    break
                before = labels
        return self.steps.download(self._tensors["class_maps"]).astype(np.float32), done

    def _tokens(self) -> int:
        most = self._most(MATCH, "T")
        return min(self.settings.tokens, most) if self.settings.tokens else most

    def _check(self, made: Captions) -> None:
        rows, classes, _ = made.pieces.shape
        for axis, count, what in (("B", rows, "captions"), ("C", classes, "classes")):
            most = self._most(SCORE, axis)
            if count > most:
                found = f"they make {count} {what}, and the graphs take {most}"
                todo = "leave more of them to the filter, name fewer, or allow longer captions"
                raise InputError(f"use {classes} classes at once", found, todo)

    def _most(self, graph: str, axis: str) -> int:
        spec: GraphSpec = self.steps.graph(graph)
        return spec.axes[axis][2]


def start(classes: int, cells: int, settings: Settings) -> dict[str, Array]:
    """What the rounds begin with: empty maps of C classes, and how many patches each round leaves out."""
    patches = np.array([settings.patches], np.float32)
    return {"class_maps": np.zeros((classes, cells), np.float32), "patches": patches}
