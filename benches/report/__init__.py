"""Results as one page for people, and as one table (docs/benchmarks.md)."""

from .page import markdown_page, page
from .result import Result, read_result, read_results

__all__ = ["Result", "markdown_page", "page", "read_result", "read_results"]
