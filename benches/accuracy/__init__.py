"""How well engines label a data set's pixels, counted exactly; and how far two engines agree (docs/benchmarks.md).

`evaluate(segmenter, dataset).miou` is a number in percent.
"""

from .evaluate import compare, evaluate
from .job import Options
from .result import Accuracy, Agreement
from .scores import CONVENTIONS, Scores, score
from .state import State

__all__ = ["CONVENTIONS", "Accuracy", "Agreement", "Options", "Scores", "State", "compare", "evaluate", "score"]
