"""`edgeseg verify`: are a bundle's files as they were written, and do its engines give here what torch gave?"""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgeseg.bundle import Bundle
from edgeseg.chains import Chains
from edgeseg.cli import printable
from edgeseg.cli.options import engine_options
from edgeseg.cli.terminal import print_json, progress_bar
from edgeseg.errors import BundleError
from edgeseg.pipelines import get_pipeline
from edgeseg.reference import Report, TensorCheck, check_chains, check_text
from edgeseg.selection import Plan, Request, choose


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@engine_options
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
def verify(bundle: Path, backend: str | None, precision: str | None, device: int, as_json: bool) -> None:
    """Check every file of BUNDLE, then compare every tensor with the reference that torch gave.

    Exits with 5 if a file is damaged, with 8 if a result is not close enough.
    """
    opened = Bundle.open(bundle)
    with progress_bar("reading files", shown=not as_json, bytes_=True) as advance:
        opened.verify(advance)
    pipeline = get_pipeline(opened.manifest)
    plan = choose(opened, pipeline.graphs, Request(backend, precision, device))
    report = verify_plan(opened, plan)
    if as_json:
        print_json("verify", **_body(plan, report))
    else:
        Console(soft_wrap=True).print(_table(report))
        click.echo(f"{len(opened.manifest.files)} files intact; {plan.backend.name} {plan.precision} {plan.device_key}")
    todo = "build the engines again, or report it with the output of `edgeseg verify --json`"
    report.require(f"trust {plan.backend.name} {plan.precision} on {plan.device_key}", todo)


def verify_plan(bundle: Bundle, plan: Plan) -> Report:
    """Every canvas that has reference tensors, and the text encoder if the bundle holds it.

    Raises:
        BundleError: the bundle holds no reference tensors at all.
    """
    pipeline = get_pipeline(bundle.manifest)
    canvases = [canvas for canvas in plan.canvases if f"{canvas[0]}x{canvas[1]}" in bundle.manifest.reference]
    if not canvases:
        todo = "verify a bundle that has them; `edgeseg export` writes them"
        raise BundleError(f"verify {bundle.path}", "it holds no reference tensors for its canvases", todo)
    with closing(Chains(bundle, plan, pipeline.graphs)) as chains:
        report = check_chains(bundle, pipeline, chains.chain, canvases, *plan.all_precisions())
    return replace(report, tensors=(*report.tensors, *_text(bundle, plan)))


def _text(bundle: Bundle, plan: Plan) -> tuple[TensorCheck, ...]:
    wanted = plan.precision_of("text")
    graphs = [graph for graph in bundle.manifest.graphs if (graph.name, graph.precision) == ("text", wanted)]
    if not graphs or "text" not in bundle.manifest.reference:
        return ()
    return check_text(bundle, graphs[0], plan.open_text(bundle, graphs[0])).tensors


def _body(plan: Plan, report: Report) -> dict[str, object]:
    return {
        "backend": plan.backend.name,
        "device": plan.device_key,
        "precision": plan.precision,
        "passed": not report.failures,
        "failures": report.failures,
        **asdict(report),
    }


def _table(report: Report) -> Table:
    table = Table("canvas", "graph", "tensor", "cosine", "max abs", "", box=None)
    for check in report.tensors:
        mark = "ok" if check.closeness >= report.limits.cosine else "FAILED"
        tensor = escape(printable(check.tensor))  # a name from the bundle must not be read as markup
        furthest = check.problem or f"{check.max_abs:.2e}"
        table.add_row(check.canvas, check.graph, tensor, f"{check.cosine:.7f}", furthest, mark)
    for labels in report.labels:
        mark = "ok" if labels.agreement >= report.limits.agreement else "FAILED"
        table.add_row(labels.canvas, "all", "labels equal", f"{labels.agreement:.4%}", "", mark)
    return table
