"""Whether one measurement differs from another by more than chance, and whether the two may be compared at all.

`edgeseg bench compare A.json B.json` is the command line; docs/benchmarks.md says how the intervals come about.
"""

from ..report.surroundings import Difference, differences
from .bootstrap import Interval, ratio_of_medians
from .comparison import compare

__all__ = ["Difference", "Interval", "compare", "differences", "ratio_of_medians"]
