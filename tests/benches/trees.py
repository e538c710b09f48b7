"""Small data sets on disk, each in one of the forms that are published or prepared by others."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (4, 6)


def photo(path: Path, seed: int = 0, size=SIZE) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    rgb = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    Image.fromarray(rgb).save(path)
    return rgb


def spread(values, size=SIZE) -> np.ndarray:
    """The values in turn over an image."""
    return np.resize(np.array(values), size)


def grey(path: Path, values, size=SIZE) -> None:
    """8 or 16 bits, by the dtype that the values need."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = spread(values, size)
    wide = pixels.max() > 255 or path.suffix == ".tif"
    Image.fromarray(pixels.astype(np.uint16 if wide else np.uint8)).save(path)


def palette(path: Path, values, size=SIZE) -> None:
    """Indexed, with colours that would give other numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(spread(values, size).astype(np.uint8))
    image.putpalette([255 - i // 3 for i in range(768)])
    image.save(path)


def ade_colours(path: Path, values, size=SIZE) -> None:
    """ADE20K's `_seg.png`: the class in red and green, instances in blue."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = spread(values, size)
    red = ids // 256 * 10 + np.arange(ids.size).reshape(size) % 10
    Image.fromarray(np.stack([red, ids % 256, ids % 7], 2).astype(np.uint8)).save(path)


def matlab(path: Path, values, size=SIZE) -> None:
    from scipy.io import savemat

    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"LabelMap": spread(values, size).astype(np.uint16)}, do_compression=True)


def listing(path: Path, keys) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{key}\n" for key in keys))
