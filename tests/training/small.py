"""A small objective on made-up images: three classes, a colour each, a vertical band each."""

from __future__ import annotations

import numpy as np
import torch

from edgeseg.export.nets.ebseg import EBSeg
from edgeseg.export.recipe import preset
from training.data import STRONG, UNSCORED, Frame
from training.ebseg import Objective, class_weights, initialise, tiny
from training.loop import Cycle, Phase, Plan

CLASSES, WIDTH = 3, 16
COLOURS = np.array([(220, 40, 40), (40, 220, 40), (40, 40, 220)], np.uint8)


def make_frames(count: int, size: tuple[int, int] = (96, 128)) -> list[Frame]:
    """Bands in a random order, with noise; a corner is not labelled."""
    frames = []
    for index in range(count):
        random = np.random.default_rng(index)
        order = random.permutation(CLASSES)
        columns = order[np.arange(size[1]) * CLASSES // size[1]]
        labels = np.broadcast_to(columns, size).astype(np.int32).copy()
        noise = random.integers(-30, 30, (*size, 3))
        rgb = (COLOURS[labels].astype(int) + noise).clip(0, 255).astype(np.uint8)
        labels[:8, :8] = UNSCORED
        frames.append(Frame(rgb, labels))
    return frames


def losses(objective, batch, rate: float, steps: int) -> list[float]:
    """The loss before each of some steps on one batch."""
    optimiser = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], rate)
    found = []
    for _ in range(steps):
        loss = objective(batch.rgb, batch.labels, batch.valid)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(float(loss.detach()))
    return found


def make_objective(seed: int = 0) -> Objective:
    """The sizes of ebseg-tiny, but for the embeddings, which are random and short."""
    torch.manual_seed(seed)
    recipe = preset("ebseg-tiny")
    text = torch.nn.functional.normalize(torch.randn(CLASSES, WIDTH), dim=-1)
    model = EBSeg(tiny(recipe, WIDTH))
    initialise(model)
    return Objective(model, recipe, text, class_weights(torch.ones(CLASSES)))


def make_plan(steps: int, batch: int = 2) -> Plan:
    """A cycle on a small canvas, and one on a larger canvas with strong augmentation."""
    first = steps // 2
    phases = Phase((64, 64), first, batch), Phase((64, 96), steps - first, batch, STRONG)
    return Plan(0, tuple(Cycle(1e-3, (phase,)) for phase in phases if phase.steps), validate=2)
