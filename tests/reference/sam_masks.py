"""Photos free of terms, and segment-anything's own generator of masks with MobileSAM's weights."""

from typing import Any


def photo(name):
    """(H, W, 3) uint8 RGB: scikit-learn's "china", or one of scikit-image's by its name."""
    import numpy as np
    from skimage import data
    from sklearn.datasets import load_sample_image  # type: ignore[import-untyped]

    return load_sample_image("china.jpg") if name == "china" else np.asarray(getattr(data, name)())


def generator(model: Any, **options: Any) -> Any:
    """The authors' generator of a model of theirs; masks as "uncompressed_rle"."""
    from segment_anything import SamAutomaticMaskGenerator

    return SamAutomaticMaskGenerator(model, output_mode="uncompressed_rle", **options)


def generate(checkpoint, rgb, **options):
    """The authors' masks of a photo, in their order."""
    from tests.reference.mobile_sam import mobile_sam

    return generator(mobile_sam(checkpoint), **options).generate(rgb)
