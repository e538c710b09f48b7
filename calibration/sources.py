"""Where images and ranges come from, as the command line says it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeseg.cli.terminal import progress_bar
from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle

    from .photos import Photos
    from .ranges import Ranges

LIMIT = 64


@dataclass(frozen=True)
class Source:
    """The options --images, --ranges, --limit and --seed; all None: what the bundle has."""

    images: Path | None = None
    ranges: Path | None = None
    limit: int | None = None
    seed: int | None = None


def find_photos(bundle: Bundle, source: Source, shown: bool) -> Photos:
    """The images, else the bundle's reference inputs."""
    from . import photos as pictures

    if source.images is None and (source.limit is not None or source.seed is not None):
        raise InputError("calibrate", "--limit and --seed choose among images", "give --images too")
    if source.images is None:
        photos = pictures.reference_photos(bundle)
        say(
            "warning: no --images were given, so the bundle's reference inputs stand in for them; "
            "they are too few to trust the result"
        )
        return photos
    with progress_bar("read images", shown=shown) as report:
        photos = pictures.photos_at(source.images, bundle, source.limit or LIMIT, source.seed or 0, report)
    if photos.note.unreadable:
        names = ", ".join(photos.note.names)
        say(f"{photos.note.unreadable} images cannot be read and were left out: {names}")
    return photos


def find_ranges(bundle: Bundle, source: Source, shown: bool) -> Ranges:
    """From the file, else from the images, else those that the bundle has, else from its reference inputs."""
    if source.images and source.ranges:
        raise InputError("calibrate", "both --images and --ranges were given", "give one of them")
    found = _known(bundle, source)
    return found or _calibrated(bundle, find_photos(bundle, source, shown), shown)


def find_ranges_for(bundle: Bundle, source: Source, photos: Photos, shown: bool) -> Ranges:
    """The same where images are to be measured with ranges; those of a calibration on the same images are taken."""
    from .quantize import RANGES_FILE
    from .ranges import load_ranges

    found = _known(bundle, source)
    if found is None and RANGES_FILE in bundle.manifest.files:
        kept = load_ranges(bundle.file(RANGES_FILE))
        found = kept if kept.images == photos.note else None
    return found or _calibrated(bundle, photos, shown)


def say(text: str) -> None:
    """A line on stderr."""
    click.echo(f"edgeseg: {text}", err=True)


def _known(bundle: Bundle, source: Source) -> Ranges | None:
    """Ranges that are there without calibrating."""
    from .quantize import RANGES_FILE
    from .ranges import load_ranges

    if source.ranges is not None:
        return load_ranges(source.ranges)
    if source.images is None and source.limit is None and source.seed is None and RANGES_FILE in bundle.manifest.files:
        say(f"using the ranges that {bundle.path} holds; give --images to calibrate again")
        return load_ranges(bundle.file(RANGES_FILE))
    return None


def _calibrated(bundle: Bundle, photos: Photos, shown: bool) -> Ranges:
    from .calibrate import calibrate

    with progress_bar("calibrate", shown=shown) as report:
        return calibrate(bundle, photos, report)
