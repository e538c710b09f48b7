"""One measurement: warm-up, runs, the machine's conditions and the memory it took."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..machine import Conditions, DeviceMemory, HostMemory, Machine
from .effort import RULE, TOTALS, Effort, Once, Report, WarmUp, run, warm_up
from .statistics import summarise
from .verdict import Verdict, judge


@dataclass(frozen=True)
class Place:
    """Where something is measured.

    Attributes:
        machine: its conditions.
        device: memory of its GPU; None on a CPU, or where no package can ask.
        on_gpu: the engines run on a GPU.
    """

    machine: Machine
    device: DeviceMemory | None = None
    on_gpu: bool = False


@dataclass(frozen=True)
class Memory:
    """Peaks in bytes; None where nobody says. `host_since` says what the host's peak covers."""

    host_peak_bytes: int | None
    host_since: str
    device_peak_bytes: int | None


@dataclass(frozen=True)
class Measurement:
    """What was measured.

    Attributes:
        warmup: what came before.
        samples_ms: stage → its milliseconds in every run.
        elapsed_s: of all runs.
        conditions: those of the machine.
        memory: peaks.
        verdict: what to make of it.
    """

    warmup: WarmUp
    samples_ms: dict[str, list[float]]
    elapsed_s: float
    conditions: Conditions
    memory: Memory
    verdict: Verdict

    @property
    def runs(self) -> int:
        """How many were measured."""
        return len(next(iter(self.samples_ms.values())))

    def describe(self) -> dict[str, Any]:
        """All but the stages as plain JSON (docs/json.md)."""
        return {
            "warmup": {**asdict(self.warmup), "elapsed_s": round(self.warmup.elapsed_s, 3), "rule": RULE},
            "runs": self.runs,
            "elapsed_s": round(self.elapsed_s, 3),
            "memory": asdict(self.memory),
            "conditions": self.conditions.describe(),
            "trusted": self.verdict.trusted,
            "reasons": list(self.verdict.reasons),
            "notes": list(self.verdict.notes),
        }


def measure(once: Once, effort: Effort, place: Place, report: Report) -> Measurement:
    """Warm up and measure. `once` runs everything a single time and gives its stages in milliseconds."""
    host = HostMemory()
    warmup = warm_up(once, effort)
    host.reset("the end of the warm-up")
    with place.machine.watch() as conditions:
        samples_ms, elapsed_s = run(once, effort, report)
    memory = Memory(host.peak_bytes(), host.since, place.device.taken_bytes() if place.device else None)
    totals_ms = {name: samples_ms[total] for total, name in TOTALS.items() if total in samples_ms}
    verdict = judge(totals_ms, warmup, conditions, on_gpu=place.on_gpu)
    return Measurement(warmup, samples_ms, elapsed_s, conditions, memory, verdict)


def stage(name: str, samples_ms: list[float], clock: str, included: str, part_of: str | None = None) -> dict[str, Any]:
    """One stage or total as plain JSON."""
    numbers = {key: round(value, 4) for key, value in asdict(summarise(samples_ms)).items()}
    said = {"name": name, "part_of": part_of, "included": included, "clock": clock}
    return {**said, **numbers, "samples_ms": [round(value, 4) for value in samples_ms]}
