"""Makes the golden masks of tests/data: MobileSAM's weights in the authors' own generator, with its defaults.

    python -m tests.reference.make_sam_masks ../shared/data/mobile_sam.pt china coffee

Takes minutes and 3 GB a photo. Photos come out of scikit-learn and scikit-image; a path will do as well.
"""

import sys
import time
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parents[1] / "data"


def photo(name):
    """(H, W, 3) uint8 RGB."""
    from PIL import Image
    from skimage import data
    from sklearn.datasets import load_sample_image  # type: ignore[import-untyped]

    if Path(name).is_file():
        return np.asarray(Image.open(name).convert("RGB"))
    return load_sample_image("china.jpg") if name == "china" else np.asarray(getattr(data, name)())


def generate(checkpoint, rgb, **options):
    """The authors' masks, in their order, as they give them with `output_mode="uncompressed_rle"`."""
    from segment_anything import SamAutomaticMaskGenerator

    from tests.reference.mobile_sam import mobile_sam

    made = SamAutomaticMaskGenerator(mobile_sam(checkpoint), output_mode="uncompressed_rle", **options)
    return made.generate(rgb)


def write(path, found):
    """One .npz: run lengths column by column from the first pixel, the first run outside of the mask."""
    runs = [np.array(mask["segmentation"]["counts"], np.uint32) for mask in found]
    np.savez_compressed(
        path,
        size=np.array(found[0]["segmentation"]["size"]),
        runs=np.concatenate(runs),
        lengths=np.array([len(one) for one in runs]),
        iou=np.array([mask["predicted_iou"] for mask in found], np.float32),
        stability=np.array([mask["stability_score"] for mask in found], np.float32),
        boxes=np.array([mask["bbox"] for mask in found], np.float32),
    )


def stored(path):
    """The golden masks of a file, as run lengths."""
    from edgeseg.segments.runs import Runs

    with np.load(path) as file:
        height, width = file["size"].tolist()
        return Runs((height, width), file["runs"], np.concatenate(([0], np.cumsum(file["lengths"]))))


if __name__ == "__main__":
    for photo_name in sys.argv[2:]:
        started = time.monotonic()
        masks = generate(Path(sys.argv[1]), photo(photo_name))
        write(FOLDER / f"sam-masks-{Path(photo_name).stem}.npz", masks)
        print(photo_name, len(masks), "masks", round(time.monotonic() - started), "s", flush=True)
