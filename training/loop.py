"""The loop: AdamW, a warm-up and a cosine, an average of the weights, a state on disk from which a run goes on."""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .data import MILD, Augmentation, Sampler
from .objective import Objective

Size = tuple[int, int]
WARM_UP = 200
LAST_RATE = 0.01
WEIGHT_DECAY = 0.05
CLIP_NORM = 1.0
AVERAGE = 0.999


@dataclass(frozen=True)
class Phase:
    """So many steps on one canvas, `batch` images each."""

    canvas: Size
    steps: int
    batch: int
    augmentation: Augmentation = MILD


@dataclass(frozen=True)
class Cycle:
    """Phases under one schedule: a warm-up to the highest learning rate, then a cosine down to a hundredth of it."""

    rate: float
    phases: tuple[Phase, ...]
    warm_up: int = WARM_UP

    @property
    def steps(self) -> int:
        """Of all phases."""
        return sum(phase.steps for phase in self.phases)

    def rate_at(self, step: int) -> float:
        """Of a step, counted from 0."""
        cosine = 0.5 + 0.5 * math.cos(math.pi * step / self.steps)
        return self.rate * min(1.0, (step + 1) / self.warm_up) * (LAST_RATE + (1 - LAST_RATE) * cosine)


@dataclass(frozen=True)
class Plan:
    """All that decides a run's outcome, but the data and the machine.

    Attributes:
        seed: of the first weights and of every batch.
        cycles: one after the other.
        validate: validate every so many steps of the last phase, counted from its end.
    """

    seed: int
    cycles: tuple[Cycle, ...]
    validate: int

    @property
    def steps(self) -> int:
        """Of all cycles."""
        return sum(cycle.steps for cycle in self.cycles)

    @property
    def last(self) -> Phase:
        """The last phase of the last cycle."""
        return self.cycles[-1].phases[-1]

    def phase(self, step: int) -> Phase:
        """Of a step, counted from 0."""
        for phase in (phase for cycle in self.cycles for phase in cycle.phases):
            if step < phase.steps:
                return phase
            step -= phase.steps
        raise IndexError(f"the plan ends {step} steps before")

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        for cycle in self.cycles:
            if step < cycle.steps:
                return cycle.rate_at(step)
            step -= cycle.steps
        raise IndexError(f"the plan ends {step} steps before")


class Run:
    """A training run that can be stopped after any step.

    Args:
        objective: with its first weights.
        sampler: of the training images.
        plan: what to do.
        folder: of the state; a state of the same plan that lies there is taken up.
    """

    def __init__(self, objective: Objective, sampler: Sampler, plan: Plan, folder: Path) -> None:
        self.objective, self.sampler, self.plan = objective, sampler, plan
        self.average = copy.deepcopy(objective).requires_grad_(False)
        self.optimiser = torch.optim.AdamW(_groups(objective), betas=(0.9, 0.98))
        self.step = 0
        self.best: tuple[float, dict[str, Tensor]] = (-1.0, {})
        self._path, self._log = folder / "state.pt", folder / "log.jsonl"
        if self._path.exists():
            self._load()

    def run(self, until: int, validate: Callable[[Objective], float], save_every: int) -> None:
        """Go on to step `until`; `validate` scores the averaged weights, and the best ones are kept."""
        started = time.monotonic()
        while self.step < until:
            loss = self._advance()
            if self._is_due():
                self._validate(validate)
            if self.step == until or self.step % save_every == 0:
                self._save(loss, time.monotonic() - started)

    def _advance(self) -> float:
        plan, step = self.plan, self.step
        for group in self.optimiser.param_groups:
            group["lr"] = plan.rate_at(step)
        phase = plan.phase(step)
        batch = self.sampler.batch(phase.batch, phase.canvas, (plan.seed, step), phase.augmentation)
        device = self.objective.text.device
        rgb, labels = batch.rgb.to(device), batch.labels.to(device)
        loss: Tensor = self.objective(rgb, labels, batch.valid)
        if not math.isfinite(float(loss.detach())):
            raise SystemExit(f"the loss of step {step} is {float(loss.detach())}; lower the rate, or use another seed")
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.objective.parameters(), CLIP_NORM)
        self.optimiser.step()
        self.step += 1
        keep = min(AVERAGE, (1 + step) / (10 + step))
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.objective.parameters(), strict=True)
            for average, current in pairs:
                average.lerp_(current, 1 - keep)
        return float(loss.detach())

    def _is_due(self) -> bool:
        left = self.plan.steps - self.step
        return left < self.plan.last.steps and left % self.plan.validate == 0

    def _validate(self, validate: Callable[[Objective], float]) -> None:
        miou = validate(self.average)
        self._write({"step": self.step, "val_miou": miou})
        if miou > self.best[0]:
            self.best = miou, copy.deepcopy(self.average.model.state_dict())

    def _save(self, loss: float, seconds: float) -> None:
        self._write({"step": self.step, "loss": loss, "seconds": round(seconds, 1)})
        state: dict[str, Any] = {
            "plan": json.dumps(asdict(self.plan)),
            "step": self.step,
            "objective": self.objective.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "best_miou": self.best[0],
            "best": self.best[1],
        }
        part = self._path.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, self._path)

    def _load(self) -> None:
        state = torch.load(self._path, map_location=self.objective.text.device, weights_only=True)
        if state["plan"] != json.dumps(asdict(self.plan)):
            raise SystemExit(f"{self._path} is of a run with another plan; give another folder")
        self.step = state["step"]
        self.objective.load_state_dict(state["objective"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.best = state["best_miou"], state["best"]

    def _write(self, line: dict[str, Any]) -> None:
        with self._log.open("a") as file:
            print(json.dumps(line), file=file)
        print(json.dumps(line), flush=True)


def _groups(objective: nn.Module) -> list[dict[str, Any]]:
    """Matrices decay; biases, norms and scalars do not."""
    parameters = list(objective.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
