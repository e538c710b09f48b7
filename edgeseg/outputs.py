"""Writes a segmentation to disk, each file complete or not at all (`docs/outputs.md`).

    STEM.labels.png   class numbers; indexed with colours up to 255 classes, above that 16-bit grey
    STEM.overlay.png  the image under the classes' colours, with a legend
    STEM.json         names, areas, and how the image went in
    STEM.npz          optional: mask logits and class probabilities, from which every class's score can be computed

"None of these" is 255 in an indexed PNG and 65535 in a 16-bit one; the JSON's `none_label` says which.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from edgeseg.atomic import atomic_write, storage_errors
from edgeseg.compose import NONE_LABEL
from edgeseg.environment import envelope
from edgeseg.errors import StorageError
from edgeseg.palette import NONE_COLOUR, colours

if TYPE_CHECKING:
    from edgeseg.segmentation import Segmentation

INDEXED_CLASSES = 255
_INDEXED_NONE = 255


@dataclass(frozen=True)
class OutputOptions:
    """Which files to write besides the label map and the JSON."""

    overlay: bool = True
    scores: bool = False


def write_outputs(result: Segmentation, folder: Path, stem: str, options: OutputOptions) -> list[Path]:
    """Write the files into `folder`, which is made if it is not there; the paths written. Raises StorageError."""
    _make(folder)
    written = [write_labels(result, folder / f"{stem}.labels.png")]
    if options.overlay:
        written.append(_write_image(result.overlay(), folder / f"{stem}.overlay.png"))
    if options.scores:
        written.append(_write_scores(result, folder / f"{stem}.npz"))
    path = folder / f"{stem}.json"
    with atomic_write(path) as temporary:
        body = envelope("run", **describe(result), files=[file.name for file in written])
        temporary.write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return [*written, path]


def write_labels(result: Segmentation, path: Path) -> Path:
    """Write the label map as PNG; see the module's text."""
    if len(result.names) > INDEXED_CLASSES:
        return _write_image(Image.fromarray(result.labels), path)
    labels = np.where(result.labels == NONE_LABEL, _INDEXED_NONE, result.labels).astype(np.uint8)
    image = Image.fromarray(labels)
    padding = [NONE_COLOUR] * (256 - len(result.names))
    image.putpalette([*colours(len(result.names)).ravel().tolist(), *(part for rgb in padding for part in rgb)])
    return _write_image(image, path)


def none_label(classes: int) -> int:
    """What "none of these" is in the label PNG of so many classes."""
    return _INDEXED_NONE if classes <= INDEXED_CLASSES else NONE_LABEL


def describe(result: Segmentation) -> dict[str, Any]:
    """The body of the JSON: everything but the pixels."""
    total = result.labels.size
    classes = [
        {"label": label, "name": name, "area_pixels": result.areas[name], "area_share": result.areas[name] / total}
        for label, name in enumerate(result.names)
    ]
    placement = result.masks.placement
    return {
        "height": result.labels.shape[0],
        "width": result.labels.shape[1],
        "classes": classes,
        "none_label": none_label(len(result.names)),
        "none_pixels": result.none_pixels,
        "exact": result.exact,
        "reason": result.reason,
        "canvas": list(placement.canvas),
        "resized": list(placement.valid),
        "notes": list(result.notes),
        "timings_ms": {name: round(value, 3) for name, value in result.timings_ms.items()},
    }


def unique_stems(paths: Iterable[Path]) -> list[str]:
    """A stem per input, no two alike even where case does not count: "street", and for a second one "street-2"."""
    paths = list(paths)
    taken: set[str] = set()
    given = {path.stem.lower() for path in paths}
    stems = []
    for path in paths:
        stem, number = path.stem, 1
        while stem.lower() in taken or (number > 1 and stem.lower() in given):
            number += 1
            stem = f"{path.stem}-{number}"
        taken.add(stem.lower())
        stems.append(stem)
    return stems


def _make(folder: Path) -> None:
    try:
        with storage_errors(f"write into {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        found = f"{error.filename} is no folder"
        raise StorageError(f"write into {folder}", found, "choose another place") from None


def _write_image(image: Image.Image, path: Path) -> Path:
    with atomic_write(path) as temporary:
        image.save(temporary, format="PNG")
    return path


def _write_scores(result: Segmentation, path: Path) -> Path:
    """Scores of all classes at every pixel would fill gigabytes; what they are computed from is small, and exact."""
    masks = result.masks
    arrays: dict[str, Any] = {
        **masks.arrays(),
        "names": np.array(masks.names),
        "canvas": np.array(masks.placement.canvas),
        "resized": np.array(masks.placement.valid),
        "original": np.array(masks.placement.original),
    }
    if result.scores is not None:
        arrays["best_score"] = result.scores
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return path
