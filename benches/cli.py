"""The verb `edgeseg bench`: a table of its own commands, each imported only when it is invoked."""

from __future__ import annotations

import shlex

import click

from edgeseg.cli import VerbGroup

# command → (where it is, what it does)
COMMANDS = {
    "accuracy": ("edgeseg.benches.accuracy.cli:accuracy", "Score engines on a labelled data set, or compare two."),
    "latency": ("edgeseg.benches.latency.cli:latency", "Time every stage of an image, and say what to make of it."),
    "rejection": ("edgeseg.benches.rejection:rejection", "Measure what rejecting classes early saves and changes."),
    "model": ("edgeseg.benches.model.cli:model", "Count what the graphs cost, and what of the machine they use."),
    "compare": (
        "edgeseg.benches.compare.cli:command",
        "Say whether one result differs from another by more than chance.",
    ),
    "report": ("edgeseg.benches.report.cli:report", "Make one page of results, and a table."),
}


class BenchGroup(VerbGroup):
    """The group; a command finds what was typed in `ctx.meta["edgeseg.command_line"]`, for its result."""

    verbs = COMMANDS

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: object
    ) -> click.Context:
        """Keep the command line."""
        line = shlex.join(["edgeseg", "bench", *args])
        context = super().make_context(info_name, args, parent, **extra)
        context.meta["edgeseg.command_line"] = line
        return context


@click.command(cls=BenchGroup)
def bench() -> None:
    """Measure what a bundle gives and what it costs."""
