"""How long an image takes, stage by stage, under which conditions, and whether the numbers are to be trusted.

`edgeseg bench latency` is its command line; docs/benchmarks.md says what each stage includes.
"""

from .effort import Effort, WarmUp
from .measure import Measurement, measure
from .spans import Spans
from .statistics import Summary, summarise
from .verdict import Verdict, judge

__all__ = ["Effort", "Measurement", "Spans", "Summary", "Verdict", "WarmUp", "judge", "measure", "summarise"]
