"""`edgeseg export`: a checkpoint, or the name of a published one, becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeseg.cli.terminal import print_json, progress_bar
from edgeseg.errors import InputError
from edgeseg.images import load
from edgeseg.schema import Size, parse_size, size_text


class SizeType(click.ParamType):  # type: ignore[type-arg]  # generic only in newer versions of click
    """HEIGHTxWIDTH."""

    name = "HxW"

    def convert(self, value: str | Size, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        """Reads "640x864" as (640, 864)."""
        if isinstance(value, tuple):
            return value
        try:
            return parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.argument("checkpoint", metavar="CHECKPOINT|PRESET")
@click.option("--size", "sizes", multiple=True, type=SizeType(), help="A canvas; may be repeated.")
@click.option("--family", help="The family or preset, where the tensors alone do not tell.")
@click.option(
    "--text-encoder",
    type=click.Path(path_type=Path),
    help="A folder with the weights of the text encoder and its vocabulary, where the checkpoint does not hold them.",
)
@click.option("--sam", type=click.Path(path_type=Path), help="SAM's file, for the masks that a CLIP checkpoint embeds.")
@click.option(
    "--dino", type=click.Path(path_type=Path), help="DINOv2's file, which the preset use-l reads beside CLIP."
)
@click.option(
    "--reference",
    "references",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A photo that engines are checked with, instead of made-up scenes; repeatable.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The bundle's folder; NAME.bundle by default.")
@click.option("--overwrite", is_flag=True, help="Take the place of a bundle that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def export(
    checkpoint: str,
    sizes: tuple[Size, ...],
    references: tuple[Path, ...],
    *,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
    **choice: Any,
) -> None:
    """Turn CHECKPOINT, a file, or PRESET, which downloads the published file, into a bundle of ONNX graphs."""
    from .bundle import export_bundle

    photos = [load(path).rgb for path in references]
    with progress_bar("export", shown=not as_json) as report:
        found = _find(checkpoint, **choice)
        target = output or Path(f"{Path(checkpoint).stem if Path(checkpoint).exists() else checkpoint}.bundle")
        bundle = export_bundle(
            found, list(sizes), target, overwrite, lambda _, done, total: report(done, total), photos=photos
        )
    manifest = bundle.manifest
    if as_json:
        canvases = [size_text(size) for size in manifest.canvases]
        body = {"name": manifest.name, "canvases": canvases, "size_bytes": bundle.size_bytes}
        print_json("export", bundle=str(bundle.path), source=vars(manifest.source), **body)
    else:
        click.echo(bundle.path)


def _find(checkpoint: str, family: str | None, **files: Any):  # type: ignore[no-untyped-def]  # Checkpoint, which needs torch
    """An existing path wins, else a preset's name."""
    from .download import download
    from .inputs import Checkpoint
    from .recipe import preset, preset_names

    path = Path(checkpoint)
    if path.exists():
        return Checkpoint(path, family, **files)
    if checkpoint not in preset_names():
        names = ", ".join(preset_names())
        found = "there is no such file, and no preset of that name"
        raise InputError(f"export {checkpoint}", found, f"give a path, or one of {names}")
    made = download(preset(checkpoint))
    return Checkpoint(made.path, family or checkpoint, made.hub, **files)
