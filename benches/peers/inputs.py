"""The inputs that all sides of a comparison read, the same in every process, and how many threads each may use."""

from __future__ import annotations

import numpy as np

from edgeseg.backends.host import physical_cores

from .side import Array

EBSEG_SIZE = 640
SAM_SIZE = 1024
CLASSES = 20
EMBEDDING = 512  # of CLIP B


def image() -> Array:
    """(640, 640, 3) uint8, RGB: noise."""
    return np.random.default_rng(0).integers(0, 256, (EBSEG_SIZE, EBSEG_SIZE, 3), dtype=np.uint8)


def embeddings() -> Array:
    """(CLASSES, EMBEDDING) float32, rows of length one: the text, as if it came from a cache."""
    rows = np.random.default_rng(1).standard_normal((CLASSES, EMBEDDING)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def overlap() -> Array:
    """(CLASSES,) float32: whether the model was trained on the class; every other one."""
    return (np.arange(CLASSES) % 2).astype(np.float32)


def photo() -> Array:
    """(480, 640, 3) uint8, RGB: noise."""
    return np.random.default_rng(3).integers(0, 256, (480, 640, 3), dtype=np.uint8)


def sam_image() -> Array:
    """(1, 3, 1024, 1024) float32 as after SAM's normalisation: noise."""
    return np.random.default_rng(2).standard_normal((1, 3, SAM_SIZE, SAM_SIZE), dtype=np.float32)


def threads() -> int:
    """One for each physical core; every side is told so."""
    return physical_cores()
