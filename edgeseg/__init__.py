"""Open-vocabulary segmentation on small devices.

segmenter = edgeseg.open("ebseg-b.bundle")
result = segmenter("photo.jpg", classes=["cat", "wooden table"])
result.overlay().save("out.png")

Importing this loads no engine SDK, and numpy only when one of the names that need it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgeseg.errors import (
    BackendError,
    BuildError,
    BundleError,
    CheckpointError,
    DownloadError,
    EdgesegError,
    GateError,
    InputError,
    StorageError,
)

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle as Bundle
    from edgeseg.segmentation import Segmentation as Segmentation
    from edgeseg.segmenter import Segmenter as Segmenter
    from edgeseg.segmenter import open as open
    from edgeseg.vocabulary import Vocabulary as Vocabulary

__version__ = "0.1.0"

# Public names that need numpy or more, and where they are; each is imported when it is first used.
_LAZY = {
    "Bundle": "edgeseg.bundle",
    "Segmentation": "edgeseg.segmentation",
    "Segmenter": "edgeseg.segmenter",
    "Vocabulary": "edgeseg.vocabulary",
    "open": "edgeseg.segmenter",
}

__all__ = [
    "BackendError",
    "BuildError",
    "Bundle",
    "BundleError",
    "CheckpointError",
    "DownloadError",
    "EdgesegError",
    "GateError",
    "InputError",
    "Segmentation",
    "Segmenter",
    "StorageError",
    "Vocabulary",
    "__version__",
    "open",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'edgeseg' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
