"""Data sets with labelled pixels, read in the forms in which they are published. docs/benchmarks.md lists them.

dataset = open_dataset("camvid-11", Path("CamVid"), "train")
sample = dataset.load(0)    # sample.rgb (H, W, 3) uint8, sample.labels (H, W) int32
"""

from .dataset import Dataset, Sample, open_dataset
from .label_map import IGNORE
from .layout import Item
from .table import ROWS

DATASETS = tuple(ROWS)

__all__ = ["DATASETS", "IGNORE", "Dataset", "Item", "Sample", "open_dataset"]
