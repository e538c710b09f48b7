"""Ranks segments of one or many photos by how well a text describes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeseg.errors import InputError
from edgeseg.segments.segments import Segments


@dataclass(frozen=True)
class Match:
    """A segment and its score: the cosine of its embedding and the text's, -1 to 1.

    Attributes:
        file: number of the file of segments. `segment`: number in it.
        box: left, top, right, bottom in pixels; right and bottom lie outside. `area`: pixels.
    """

    file: int
    segment: int
    score: float
    box: tuple[int, int, int, int]
    area: int


def rank(many: Sequence[Segments], text: npt.NDArray[np.float32], most: int) -> list[Match]:
    """The best segments first; equal ones in the order given. Empty masks, which have no embedding, are left out.

    Args:
        many: one value per photo, with embeddings.
        text: (D,) unit row.
        most: how many at most.

    Raises:
        InputError: a file has no embeddings, or of another space.
    """
    matches: list[Match] = []
    for number, segments in enumerate(many):
        rows = segments.embeddings
        if rows is None or rows.shape[1] != len(text):
            width = 0 if rows is None else rows.shape[1]
            found = f"{segments.image or f'file {number}'} has embeddings of {width} values, the text's has {len(text)}"
            raise InputError("rank the segments", found, "make the file with the bundle that encodes the text")
        boxes, areas, scores = segments.runs.boxes(), segments.runs.areas(), rows @ text
        order = np.argsort(-scores, kind="stable")
        kept = [int(i) for i in order if areas[i] and rows[i].any()][:most]
        boxes_of = {i: tuple(map(int, boxes[i])) for i in kept}
        matches += [Match(number, i, float(scores[i]), boxes_of[i], int(areas[i])) for i in kept]  # type: ignore[arg-type]  # of four
    return sorted(matches, key=lambda match: -match.score)[:most]


def load_all(paths: Sequence[Path]) -> list[Segments]:
    """Files of segments of one space. Raises InputError."""
    many = [Segments.load(path) for path in paths]
    for path, segments in zip(paths, many, strict=True):
        if segments.embeddings is None and len(segments):
            found = "its segments have no embeddings"
            raise InputError(f"query {path}", found, "make it with a bundle of USE, exported from a CLIP and --sam")
        if segments.encoder != many[0].encoder:
            found = f"its embeddings lie in another space than those of {paths[0]}"
            raise InputError(f"query {path}", found, "make both with one bundle")
    return many
