"""The command `edgeseg`: the table of verbs, and the one place where an error becomes a line and an exit code.

A verb's module is imported only when that verb is invoked, so that `edgeseg --help` loads no SDK, and a device without
the host's packages can run what it has.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import click

import edgeseg
from edgeseg.atomic import storage_errors
from edgeseg.errors import INTERRUPTED, EdgesegError

# verb → (where its click command is, what it does)
VERBS = {
    "export": ("edgeseg.export.cli:export", "Turn a checkpoint into a bundle of ONNX graphs."),
    "quantize": ("edgeseg.calibration.cli:quantize", "Add graphs of a lower precision to a bundle."),
    "build": ("edgeseg.engines.cli:build", "Build the engines of a bundle for a device."),
    "vocab": ("edgeseg.cli.vocab:vocab", "Encode class names into a vocabulary file."),
    "run": ("edgeseg.cli.run:run", "Segment images."),
    "segments": ("edgeseg.cli.segments:segments", "Find everything in a photo, as masks."),
    "query": ("edgeseg.cli.query:query", "Rank segments by how well a text describes them."),
    "inspect": ("edgeseg.cli.bundle:inspect", "Show what a bundle holds."),
    "bench": ("edgeseg.benches.cli:bench", "Measure what a bundle gives and what it costs."),
    "verify": ("edgeseg.cli.verify:verify", "Check a bundle's files and results against its reference."),
    "pack": ("edgeseg.cli.bundle:pack", "Copy only what a device needs into a new bundle."),
    "doctor": ("edgeseg.cli.doctor:doctor", "Say which backends and devices work here, and why others do not."),
    "demo": ("edgeseg.cli.demo:demo", "Run the whole chain once, from checkpoint to label map."),
}

_STAGES = {where.rpartition(".cli:")[0] for where, _ in VERBS.values()} - {"edgeseg", ""}

# Third-party module → the extra that installs it; any other module that is missing comes with `host`.
_EXTRAS = {
    "onnxruntime": "onnxruntime",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "rtx",
    "cuda": "cuda",
    "pycuda": "pycuda",
    "ray": "ray",
}


class VerbGroup(click.Group):
    """A group that knows its verbs from a table and imports one only to run it, or to show that verb's own help.

    Attributes:
        verbs: name → ("module:attribute", what it does).
    """

    verbs: Mapping[str, tuple[str, str]] = VERBS

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order in which they are used."""
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a verb's command; None if there is no such verb."""
        if cmd_name not in self.verbs:
            return None
        module, attribute = self.verbs[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_, text) in self.verbs.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the verbs when an unknown one is asked for."""
        if args and args[0] not in self.verbs and not args[0].startswith("-"):
            ctx.fail(f"there is no command {printable(args[0])!r}; there are {', '.join(self.verbs)}")
        return super().resolve_command(ctx, args)


@click.command(cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(edgeseg.__version__, prog_name="edgeseg", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def group(debug: bool) -> None:
    """Open-vocabulary segmentation on small devices: from a checkpoint to engines, and from photos to label maps."""


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code (docs/exit-codes.md).

    Args:
        args: the words after `edgeseg`; those of this process by default.
    """
    words = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in words[:1]
    try:
        with storage_errors("run " + " ".join(["edgeseg", *words[:1]])):
            code: Any = group.main(words, prog_name="edgeseg", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted")
        return INTERRUPTED
    except Exception as error:
        return _report(error, debug)


def _report(error: Exception, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    known = error if isinstance(error, EdgesegError) else _missing_package(error)
    if known is not None:
        _say(str(known))
        return known.exit_code
    found = f"internal error: {type(error).__name__}: {error}"
    _say(f"{found}; this is a fault of edgeseg {edgeseg.__version__}; please report what `edgeseg --debug` prints")
    return EdgesegError.exit_code


def _missing_package(error: Exception) -> EdgesegError | None:
    """A third-party package or a whole stage that is not installed, as an error with the line that installs it."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    top = error.name.split(".")[0]
    if top == "edgeseg" and error.name not in _STAGES:
        return None
    missing, extra = error.name if top == "edgeseg" else top, _EXTRAS.get(top, "host")
    return EdgesegError("run this command", f"{missing} is not installed", f'pip install "edgeseg[{extra}]"')


def _say(text: str) -> None:
    click.echo(f"edgeseg: {printable(' '.join(text.split()))}", err=True)


def printable(text: str) -> str:
    """Text without control characters: names in a bundle or a photo's file name must not steer the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
