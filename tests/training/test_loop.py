"""A run is its plan: the same weights every time, however often it was stopped."""

from __future__ import annotations

import json

import pytest
import torch

from tests.training.small import CLASSES, make_frames, make_objective, make_plan
from training.data import Sampler
from training.loop import Cycle, Phase, Plan, Run

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def _deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def train(folder, steps, stops=(), batch=2, score=lambda average: 0.0):
    """Run `steps` steps in a folder, anew from disk after each of `stops`."""
    folder.mkdir(exist_ok=True)
    sampler = Sampler(make_frames(4), CLASSES)
    for until in (*stops, steps):
        run = Run(make_objective(), sampler, make_plan(steps, batch), folder)
        run.run(until, score, save_every=1000)
    return run


def weights(run):
    return {**run.objective.state_dict(), **{f"average.{k}": v for k, v in run.average.state_dict().items()}}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    whole, resumed = train(tmp_path / "a", 6), train(tmp_path / "b", 6, stops=(1, 4))
    assert_equal(weights(whole), weights(resumed))


@pytest.mark.slow
def test_two_runs_of_fifty_steps_with_one_seed_give_the_same_weights(tmp_path):
    one, other = train(tmp_path / "a", 50, batch=4), train(tmp_path / "b", 50, stops=(23,), batch=4)
    assert_equal(weights(one), weights(other))


def test_another_seed_gives_other_weights(tmp_path):
    sampler = Sampler(make_frames(4), CLASSES)
    runs = []
    for seed in (0, 1):
        plan = Plan(seed, (Cycle(1e-3, (Phase((64, 64), 1, 2),)),), validate=1)
        runs.append(Run(make_objective(), sampler, plan, tmp_path / str(seed)))
        (tmp_path / str(seed)).mkdir()
        runs[-1].run(1, lambda average: 0.0, save_every=1)
    one, other = (run.objective.model.state_dict()["ov_classifier.bg_embed"] for run in runs)
    assert not torch.equal(one, other)


def test_the_best_validated_weights_are_kept_over_a_stop(tmp_path):
    scores = iter((10.0, 30.0, 20.0))
    run = train(tmp_path / "a", 10, stops=(7,), score=lambda average: next(scores))
    assert run.best[0] == 30.0
    assert not torch.equal(
        run.best[1]["ov_classifier.bg_embed"], run.average.model.state_dict()["ov_classifier.bg_embed"]
    )
    lines = [json.loads(line) for line in (tmp_path / "a/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "val_miou" in line] == [6, 8, 10]


def test_a_state_of_another_plan_is_refused(tmp_path):
    train(tmp_path / "a", 2)
    with pytest.raises(SystemExit, match="another plan"):
        Run(make_objective(), Sampler(make_frames(1), CLASSES), make_plan(4), tmp_path / "a")


def test_rates_rise_and_then_fall():
    plan = Plan(0, (Cycle(1.0, (Phase((64, 64), 400, 4), Phase((64, 96), 600, 4))),), validate=1)
    rates = [plan.rate_at(step) for step in (0, 100, 199, 500, 999)]
    assert rates == sorted(rates[:3]) + sorted(rates[3:], reverse=True)
    assert rates[0] < 0.01
    assert rates[-1] == pytest.approx(0.01, abs=1e-4)


def test_a_short_cycle_may_rise_faster():
    phases = (Phase((64, 64), 400, 4),)
    short, usual = (Cycle(1.0, phases, **options).rate_at(49) for options in ({"warm_up": 50}, {}))
    assert short == pytest.approx(4 * usual)


def test_a_second_cycle_starts_over_from_its_own_rate():
    plan = Plan(0, (Cycle(1.0, (Phase((64, 64), 300, 4),)), Cycle(0.5, (Phase((64, 96), 300, 2),))), validate=1)
    assert [plan.rate_at(300 + step) for step in (0, 150, 299)] == [plan.rate_at(step) / 2 for step in (0, 150, 299)]
    assert [plan.phase(step).batch for step in (299, 300)] == [4, 2]
    with pytest.raises(IndexError):
        plan.rate_at(600)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path):
    objective = make_objective()
    with torch.no_grad():
        objective.sam_classifier.bias.fill_(torch.nan)
    run = Run(objective, Sampler(make_frames(1), CLASSES), make_plan(2), tmp_path)
    with pytest.raises(SystemExit, match="loss of step 0 is nan"):
        run.run(2, lambda average: 0.0, save_every=1)
    assert not (tmp_path / "state.pt").exists()


@pytest.mark.slow
def test_the_loss_falls(tmp_path):
    run = train(tmp_path / "a", 60, batch=4)
    frames = make_frames(8)
    with torch.no_grad():
        batch = Sampler(frames, CLASSES).batch(8, (64, 96), (99,))
        before, after = (float(o(batch.rgb, batch.labels, batch.valid)) for o in (make_objective(), run.objective))
    assert after < 0.6 * before
