"""The options of `edgeseg quantize` that ask for a measurement: --report, --budget, and what belongs to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

from edgeseg.cli.options import classes_options
from edgeseg.errors import InputError

F = TypeVar("F", bound=Callable[..., object])

MIXED = "mixed"

BUDGET = 0.5
"""Percent of the labels that `--precision mixed` may change, unless --budget says otherwise."""

KIND = "int8"
"""What `--precision mixed` begins with."""

TIME_LIMIT_MINUTES = 60.0


@dataclass(frozen=True)
class Question:
    """The options of `study_options`.

    Attributes:
        report: where to write the report. `budget`: see `study.study`.
        labels: folder of true labels. `time_limit`: in minutes.
        classes: the options of `classes_options`.
    """

    report: Path | None = None
    budget: float | None = None
    labels: Path | None = None
    time_limit: float | None = None
    classes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, *, report: Path | None, budget: float | None, labels: Path | None, time_limit: float | None, **classes: Any
    ) -> Question:
        """The options as the command gets them."""
        return cls(report, budget, labels, time_limit, {name: value for name, value in classes.items() if value})

    def check(self, precision: str) -> None:
        """Raise InputError for options that say nothing by themselves."""
        lone = {"labels": self.labels, "time-limit": self.time_limit, **self.classes}
        used = [name for name, value in lone.items() if value is not None]
        if used and not self.wanted(precision):
            found = "it goes with --report, --budget or --precision mixed"
            raise InputError(f"quantize with --{used[0]}", found, "give one of them too, or leave it out")

    def wanted(self, precision: str) -> bool:
        """Whether anything is to be measured."""
        return precision == MIXED or self.report is not None or self.budget is not None

    def allowed(self, precision: str) -> float | None:
        """The budget; None if there is nothing to search for."""
        return BUDGET if precision == MIXED and self.budget is None else self.budget


def study_options(command: F) -> F:
    """Adds the options of a `Question`; those of `classes_options` come by their own names."""
    path = click.Path(path_type=Path)
    budget = (
        "Make precision mixed: raise as few blocks as needed so that at most this share of labels differs from fp32; "
        f"with --labels, lose at most these points of mIoU.  [mixed: {BUDGET}]"
    )
    options = (
        click.option("--report", type=path, metavar="DIR", help="Measure each block; write table and plot there."),
        click.option("--budget", type=click.FloatRange(0, 100), metavar="PERCENT", help=budget),
        click.option("--labels", type=path, metavar="DIR", help="True labels of the images: NAME.png for NAME.jpg."),
        click.option(
            "--time-limit",
            type=click.FloatRange(0, min_open=True),
            metavar="MINUTES",
            help=f"Stop measuring after this, to be continued.  [default: {TIME_LIMIT_MINUTES:g}]",
        ),
    )
    command = classes_options(command)
    for option in reversed(options):
        command = option(command)
    return command
