"""Whether a measurement is to be trusted, in plain words.

A reason makes the number untrustworthy: measured again, it may well come out otherwise. A note is something that a
reader should know and that does not change the median.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..machine import Conditions
from .effort import LEAST_RUNS, WarmUp
from .statistics import median, summarise

SPREAD_PERCENT = 10.0  # the middle half of the runs, of the median
TAIL = 1.5  # p95 to p50
DRIFT = 0.05  # last third of the runs to the first
CLOCK = 0.05  # of the highest reading
OTHERS_CPUS = 0.1  # of all allowed CPUs
STOLEN_CPUS = 0.01  # likewise
BUSY_GPU_PERCENT = 10
P99_RUNS = 100
THIRD_RUNS = 5  # in a third, for a drift to be told from noise


@dataclass(frozen=True)
class Verdict:
    """What to make of a number.

    Attributes:
        reasons: why it is not to be trusted; empty if it is.
        notes: what else a reader should know.
    """

    reasons: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def trusted(self) -> bool:
        """No reason speaks against it."""
        return not self.reasons

    @property
    def line(self) -> str:
        """One sentence."""
        return "trusted" if self.trusted else "not to be trusted because " + "; ".join(self.reasons)


def judge(totals_ms: Mapping[str, Sequence[float]], warmup: WarmUp, conditions: Conditions, *, on_gpu: bool) -> Verdict:
    """The verdict on a measurement.

    Args:
        totals_ms: what a total is called → every run, in order. Stages are not judged: a short one may vary.
        warmup: what came before.
        conditions: those of the measurement.
        on_gpu: the engines run on a GPU, so the CPU's clock matters less than the GPU's.
    """
    runs = len(next(iter(totals_ms.values())))
    reasons = [*_amount(runs, warmup)]
    for name, samples_ms in totals_ms.items():
        reasons += [f"{name}: {text}" for text in _runs(samples_ms)]
    reasons += [*_machine(conditions, on_gpu), *_load(conditions, on_gpu)]
    return Verdict(tuple(reasons), tuple(_notes(runs, conditions, on_gpu)))


def _amount(runs: int, warmup: WarmUp) -> Iterator[str]:
    if not warmup.settled:
        yield f"the latency had not settled after {warmup.runs} runs of warm-up"
    if runs < LEAST_RUNS:
        yield f"there are too few runs ({runs}, at least {LEAST_RUNS} are needed)"


def _runs(samples_ms: Sequence[float]) -> Iterator[str]:
    found, third = summarise(samples_ms), len(samples_ms) // 3
    if found.spread_percent > SPREAD_PERCENT:
        yield f"the spread is too wide (the middle half of the runs covers {found.spread_percent:.0f} % of the median)"
    elif found.p95_ms > TAIL * found.p50_ms:
        yield f"one run in twenty takes more than {found.p95_ms / found.p50_ms:.1f} times the median"
    if third >= THIRD_RUNS:
        drift = median(samples_ms[-third:]) / max(median(samples_ms[:third]), 1e-9) - 1
        if abs(drift) > DRIFT:
            yield f"the latency drifted by {drift:+.0%} from the first third of the runs to the last"


def _machine(conditions: Conditions, on_gpu: bool) -> Iterator[str]:
    decisive = "gpu" if on_gpu else "cpu"
    for found in conditions.ranges:
        if (found.kind, found.of) == ("clock_mhz", decisive) and found.least < (1 - CLOCK) * found.most:
            yield f"the {decisive.upper()}'s clock moved between {found.least:.0f} and {found.most:.0f} MHz"
    yield from (f"clocks were held down ({text})" for text in conditions.throttles)
    yield from (f"{name} went up by {count} meanwhile" for name, count in conditions.slow_downs.items())
    other = [name for name in conditions.governors if name != "performance"]
    if other and not on_gpu:
        yield f"the CPU's frequency governor is {' and '.join(other)}, not performance"


def _load(conditions: Conditions, on_gpu: bool) -> Iterator[str]:
    others, stolen, cores = conditions.cpu.others, conditions.cpu.stolen, conditions.cores
    if others is not None and others > OTHERS_CPUS * cores:
        yield f"other programs used {others:.1f} of the {cores} CPUs meanwhile"
    elif others is None and (conditions.load_average or 0) > OTHERS_CPUS * cores:
        yield f"the load average was {conditions.load_average} before it began"
    if stolen is not None and stolen > STOLEN_CPUS * cores:
        yield f"the hypervisor took {stolen / cores:.0%} of the CPUs away"
    busy = conditions.gpu_busy_percent
    if on_gpu and busy is not None and busy >= BUSY_GPU_PERCENT:
        yield f"the GPU was {busy} % busy before it began"


def _notes(runs: int, conditions: Conditions, on_gpu: bool) -> Iterator[str]:
    if runs < P99_RUNS:
        yield f"of {runs} runs, p99 is little else than the slowest"
    if conditions.power_capped:
        yield "the GPU's power limit held its clock down at times"
    other = [name for name in conditions.governors if name != "performance"]
    if other and on_gpu:
        yield f"the CPU's frequency governor is {' and '.join(other)}"
    programs = (conditions.gpu or {}).get("programs")
    if programs is not None and programs > 1:
        yield f"{programs} programs hold the GPU"
