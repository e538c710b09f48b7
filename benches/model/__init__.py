"""What the graphs of a bundle cost by themselves, and how much of this machine's roofline their engines reach.

Counted from the ONNX files alone; `edgeseg bench model` is the command line, docs/benchmarks.md says what is counted.
"""

from .cost import GraphCost, OperatorCost, count
from .operators import KINDS
from .roofline import Roofline, host_roofline

__all__ = ["KINDS", "GraphCost", "OperatorCost", "Roofline", "count", "host_roofline"]
