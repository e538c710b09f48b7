"""Automatic masks that segment-anything's own generator made, stored as run lengths: it takes minutes a photo.

    python -m tests.reference.golden_masks mobile_sam.pt

writes them again, with MobileSAM's published weights and the generator's defaults (a grid of 32x32 points).
"""

import hashlib
import sys
from pathlib import Path

import numpy as np

from tests.reference.sam_masks import generate, photo

PHOTOS = ("coffee", "chelsea")
FOLDER = Path(__file__).parent / "masks"


def digest(rgb):
    """Of a photo's pixels."""
    return hashlib.sha256(np.ascontiguousarray(rgb).tobytes()).hexdigest()


def golden(name):
    """The masks (`edgeseg.segments.runs.Runs`) of a photo, in the generator's order, and the digest of that photo."""
    from edgeseg.segments.runs import pack

    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as stored:
        counts = np.split(stored["counts"], np.cumsum(stored["lengths"])[:-1])
        height, width = (int(side) for side in stored["size"])
        return pack([one.astype(np.uint32) for one in counts], (height, width)), str(stored["photo"])


def write(checkpoint, name):
    """Make the masks of a photo and store them."""
    rgb = photo(name)
    masks = [one["segmentation"] for one in generate(checkpoint, rgb)]
    lengths = np.array([len(one["counts"]) for one in masks], np.uint32)
    counts = np.concatenate([np.array(one["counts"], np.uint32) for one in masks])
    file = FOLDER / f"{name}.npz"
    np.savez_compressed(file, size=np.array(rgb.shape[:2]), lengths=lengths, counts=counts, photo=digest(rgb))
    print(f"{file.name}: {len(masks)} masks, {file.stat().st_size} bytes")


if __name__ == "__main__":
    for each in PHOTOS:
        write(Path(sys.argv[1]), each)
