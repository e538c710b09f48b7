"""Photos free of terms, and segment-anything's own generator of masks with MobileSAM's weights."""


def photo(name):
    """(H, W, 3) uint8 RGB: scikit-learn's "china", or one of scikit-image's by its name."""
    import numpy as np
    from skimage import data
    from sklearn.datasets import load_sample_image  # type: ignore[import-untyped]

    return load_sample_image("china.jpg") if name == "china" else np.asarray(getattr(data, name)())


def generate(checkpoint, rgb, **options):
    """The authors' masks, in their order, as they give them with `output_mode="uncompressed_rle"`."""
    from segment_anything import SamAutomaticMaskGenerator

    from tests.reference.mobile_sam import mobile_sam

    made = SamAutomaticMaskGenerator(mobile_sam(checkpoint), output_mode="uncompressed_rle", **options)
    return made.generate(rgb)
