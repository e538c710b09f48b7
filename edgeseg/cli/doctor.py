"""`edgeseg doctor`: which backends and devices work here, and what to install where they do not."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from edgeseg.backends import BACKENDS, get_backend
from edgeseg.cli import printable
from edgeseg.cli.terminal import print_json
from edgeseg.environment import environment


@click.command()
@click.option("--device", type=int, default=0, show_default=True, help="Index of the GPU to look at.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(device: int, as_json: bool) -> None:
    """Say which backends and devices work here, and why others do not."""
    findings = examine(device)
    if as_json:
        print_json("doctor", backends=findings)
        return
    about = environment()
    click.echo(f"edgeseg {about['edgeseg']}, Python {about['python']}, {about['cpu']}, {about['cores']} cores")
    for finding in findings:
        click.echo("\n".join(map(printable, _lines(finding))))
    if not any(finding["works"] for finding in findings):
        click.echo("No backend works here. One of the lines above says what to install.")


def examine(device: int) -> list[dict[str, Any]]:
    """What each backend but the fake one finds, as plain JSON."""
    names = [name for name in BACKENDS if name != "fake"]
    return [{"backend": name, **asdict(get_backend(name).probe(device))} for name in names]


def _lines(finding: dict[str, Any]) -> list[str]:
    """What one backend finds: its state and device, then the reason and versions, as they are: nothing is wrapped."""
    state = "works" if finding["works"] else "builds only" if finding["builds"] else "does not work"
    versions = ", ".join(f"{name} {version}" for name, version in finding["versions"].items())
    device = f" on {finding['device']}" if finding["device"] else ""
    details = [text for text in (finding["why"], versions) if text]
    return [f"{finding['backend']}: {state}{device}", *(f"    {text}" for text in details)]
