"""The bundle: a directory of graphs, engines, tokenizer and reference tensors, and `bundle.json`, which lists them all.

Everything in a bundle is hostile until checked; everything written to one is written completely or not at all. The
format is in `docs/bundle.md`.
"""

from edgeseg.bundle.bundle import Bundle
from edgeseg.bundle.edit import BundleEdit

__all__ = ["Bundle", "BundleEdit"]
