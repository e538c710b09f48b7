"""Trains a tiny model on CamVid: python -m training --root CamVid -o run. A stopped run goes on where it was saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch
from safetensors.torch import save_file
from torch import Tensor

from edgeseg.benches.datasets import open_dataset
from edgeseg.export.recipe import Recipe, preset

from . import ebseg, lmseg, use
from .data import STRONG, Sampler, count_pixels, read_frames
from .ebseg import class_weights
from .loop import Cycle, Phase, Plan, Run
from .objective import Objective
from .score import confusion, ious

DATASET = "camvid-11"
# Small canvases are cheap; the last one is what the model is scored on. Photos of another drive look different, hence
# the second cycle.
EBSEG = (
    Cycle(1e-3, (Phase((192, 256), 4500, batch=4), Phase((288, 384), 1000, batch=4), Phase((384, 480), 2000, batch=2))),
    Cycle(
        6e-4,
        (Phase((288, 384), 1000, batch=4, augmentation=STRONG), Phase((384, 480), 2400, batch=2, augmentation=STRONG)),
    ),
)
# From trained encoders, and on the only canvas that the aggregation has.
LMSEG = (Cycle(1e-3, (Phase((384, 480), 200, batch=2, augmentation=STRONG),), warm_up=20),)
# What lies behind trained encoders learns fast.
USE = (Cycle(5e-3, (Phase((384, 480), 150, batch=2),), warm_up=15),)
SAVE_EVERY = 25


@dataclass(frozen=True)
class Model:
    """How a preset is trained.

    Attributes:
        make: gives the objective with its first weights, for class names and their weights in the loss.
        cycles: of the plan.
        validations: in the last phase.
    """

    make: Callable[[Recipe, list[str], Tensor], Objective]
    cycles: tuple[Cycle, ...]
    validations: int


# By preset.
MODELS = {
    "ebseg-tiny": Model(ebseg.make, EBSEG, 5),
    "lmseg-tiny": Model(lmseg.make, LMSEG, 1),
    "use-tiny": Model(use.make, USE, 1),
}


@click.command()
@click.option("--model", type=click.Choice(list(MODELS)), default="ebseg-tiny", show_default=True)
@click.option("--root", type=click.Path(path_type=Path, exists=True), required=True, help="CamVid's folder.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder of state and weights.")
@click.option("--scale", default=1.0, show_default=True, help="Share of the steps, for a shorter run.")
@click.option("--seed", default=0, show_default=True)
@click.option("--device", default="cpu", show_default=True, help="As torch names it.")
@click.option("--hold-out", default="", help="Class names, between commas, whose pixels are not trained on.")
def main(model: str, root: Path, output: Path, hold_out: str, device: str, **options: Any) -> None:
    """Train, choose by the validation split, write the weights as half-precision safetensors."""
    torch.use_deterministic_algorithms(True, warn_only=device != "cpu")  # CUDA has no such bilinear resize
    torch.set_flush_denormal(True)  # a softmax leaves denormal numbers, which slow a CPU down a hundredfold
    torch.manual_seed(options["seed"])
    output.mkdir(parents=True, exist_ok=True)
    train, val = open_dataset(DATASET, root, "train"), open_dataset(DATASET, root, "val")
    kept = _kept(train.classes.names, hold_out)
    frames, judged = read_frames(train, kept), read_frames(val, kept)
    names, weights = [train.classes.names[index] for index in kept], class_weights(count_pixels(frames, len(kept)))
    objective = MODELS[model].make(preset(model), names, weights).to(device)
    run = Run(objective, Sampler(frames, len(kept)), _plan(MODELS[model], **options), output)

    def validate(average: Objective) -> float:
        return float(ious(confusion(average, judged, average.text, torch.ones(len(kept)))).mean())

    run.run(run.plan.steps, validate, SAVE_EVERY)
    best, path = objective.checkpoint(run.best[1]), output / f"{model}.safetensors"
    save_file({name: value.half().cpu().contiguous() for name, value in best.items()}, path)
    click.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB, val mIoU {run.best[0]:.2f} %")


def _kept(names: tuple[str, ...], hold_out: str) -> list[int]:
    held = {name.strip() for name in hold_out.split(",") if name.strip()}
    if not held <= set(names) or len(held) > len(names) - 2:
        raise click.UsageError(f"--hold-out takes some of: {', '.join(names)}")
    return [index for index, name in enumerate(names) if name not in held]


def _plan(model: Model, scale: float, seed: int) -> Plan:
    if not 0 < scale <= 1:
        raise click.UsageError("--scale takes a share, above 0 and at most 1")

    def shorter(cycle: Cycle) -> Cycle:
        phases = tuple(replace(phase, steps=max(1, round(phase.steps * scale))) for phase in cycle.phases)
        return replace(cycle, phases=phases)

    cycles = tuple(shorter(cycle) for cycle in model.cycles)
    return Plan(seed, cycles, max(1, cycles[-1].phases[-1].steps // model.validations))


if __name__ == "__main__":
    main()
