"""Studies: which block is blamed, what a budget lifts, and that nothing depends on interruptions."""

import itertools
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.bundle import Bundle
from edgeseg.calibration.sensitivity import budget as module
from edgeseg.calibration.sensitivity.budget import least
from edgeseg.calibration.sensitivity.report import report_body
from edgeseg.calibration.sensitivity.study import study
from edgeseg.calibration.sensitivity.trials import Trials
from edgeseg.errors import BuildError
from tests.calibration.sensitivity.toy import KEYS, SPOILT, make, quiet, setup_of

pytestmark = pytest.mark.onnx

ENOUGH = 3.0
"""Percent: holds without the spoilt block, and not with it."""


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return setup_of(make(folder / "toy.bundle"), folder / "photos")


@pytest.fixture
def setup(original, tmp_path):
    return moved(original, tmp_path)


def moved(setup, folder):
    return replace(setup, bundle=Bundle.open(shutil.copytree(setup.bundle.path, folder / "toy.bundle")))


@pytest.fixture(scope="module")
def lifted(original, tmp_path_factory):
    """The report of a study with a budget."""
    return report_body(study(moved(original, tmp_path_factory.mktemp("lifted")), quiet, ENOUGH), {})


def test_the_spoilt_block_is_blamed_before_all_others(lifted):
    blocks = lifted["blocks"]
    assert blocks[0]["block"] == SPOILT
    assert blocks[0]["tensor"] == "sam_2"
    assert blocks[0]["different_percent"] > 5 * blocks[1]["different_percent"]
    assert sorted(one["block"] for one in blocks) == sorted(KEYS)
    assert lifted["together"]["different_percent"] > ENOUGH


def test_the_budget_lifts_that_block_alone(lifted):
    budget = lifted["budget"]
    assert budget["lifted"] == [SPOILT]
    assert budget["single"] == []
    assert 0 < budget["reached"] <= ENOUGH
    assert budget["lifted_macs"] == next(one["macs"] for one in lifted["blocks"] if one["block"] == SPOILT)


def test_a_budget_that_holds_lifts_nothing(setup):
    found = study(setup, quiet, 50.0).found
    assert found is not None
    assert (found.lifted, found.single, found.lifted_macs) == ((), (), 0)
    assert len(found.tries) == 2  # plain and typed


def test_a_budget_that_nothing_holds_says_what_was_reached(setup):
    with pytest.raises(
        BuildError, match=r"nothing would be left: with nothing but sam/blocks\.\d in int8, 0\.\d+"
    ) as e:
        study(setup, quiet, 0.0)
    assert "percent of the labels differ" in e.value.found
    assert "fp16" in e.value.todo


def test_interrupted_anywhere_it_ends_the_same(setup, lifted):
    for count in (3, 11, 30, 52, 75):
        with pytest.raises(KeyboardInterrupt):
            study(setup, press_after(count), ENOUGH)
    assert report_body(study(setup, quiet, ENOUGH), {}) == lifted
    assert not setup.bundle.path.with_name(".toy.bundle.sensitivity").exists()


def press_after(count):
    calls = itertools.count()

    def press(_done, _total):
        if next(calls) == count:
            raise KeyboardInterrupt

    return press


def test_what_was_done_is_not_done_again(setup, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        study(setup, press_after(40), ENOUGH)
    ran = []
    inner = Trials._labels

    def counted(self, index, tensors):
        ran.append(index)
        return inner(self, index, tensors)

    monkeypatch.setattr(Trials, "_labels", counted)
    study(setup, quiet, None)
    assert len(ran) == 10 + 8 * (len(KEYS) + 1) - 40 + 1  # the first call reports that nothing is done


def test_a_damaged_or_foreign_record_is_not_used(setup, lifted):
    with pytest.raises(KeyboardInterrupt):
        study(setup, press_after(30), ENOUGH)
    record = setup.bundle.path.with_name(".toy.bundle.sensitivity") / "trials.json"
    value = json.loads(record.read_text())
    for rows in value["rows"].values():
        for one in rows:
            one["different"] = 7
    record.write_text(json.dumps(value | {"key": "another study"}))
    assert report_body(study(setup, quiet, ENOUGH), {}) == lifted


def test_it_stops_when_the_time_is_over_and_goes_on_later(setup, lifted):
    with pytest.raises(BuildError, match="the time limit of 1e-05 minutes is over"):
        study(setup, quiet, ENOUGH, 6e-4)
    assert report_body(study(setup, quiet, ENOUGH), {}) == lifted


def test_an_expensive_block_that_is_not_needed_is_put_back(setup, monkeypatch):
    """Bisection may stop at two blocks where one of them is enough."""
    monkeypatch.setattr(module, "least", lambda count, holds: min(2, count))
    found = study(setup, quiet, ENOUGH).found
    assert found is not None
    assert found.lifted == (SPOILT,)
    assert [set(one.lifted) for one in found.tries[:2]] == [{SPOILT}, set()]


@pytest.fixture(scope="module")
def faint(tmp_path_factory):
    """A setup in which fp16 has no room for the weights of block 2, and int8 neither."""
    folder = tmp_path_factory.mktemp("faint")
    return setup_of(make(folder / "toy.bundle", spoilt=None, faint=2), folder / "photos")


def test_a_block_that_fp16_spoils_computes_in_fp32(faint, tmp_path):
    report = report_body(study(replace(moved(faint, tmp_path), kind="fp16"), quiet, 0.3), {})
    budget = report["budget"]
    assert report["blocks"][0]["block"] == "sam/blocks.2"
    assert (budget["lifted"], budget["single"]) == ([], ["sam/blocks.2"])
    assert budget["reached"] <= 0.3 < budget["tries"][0]["loss"]
    assert budget["plain"] is None


def test_a_block_that_fp16_spoils_too_goes_on_to_fp32(faint, tmp_path):
    budget = report_body(study(moved(faint, tmp_path), quiet, 2.0), {})["budget"]
    assert (budget["lifted"], budget["single"]) == (["sam/blocks.2"], ["sam/blocks.2"])
    assert max(budget[form]["different_percent"] for form in ("plain", "typed")) == budget["reached"] <= 2


def test_progress_never_goes_back_and_ends_at_all(setup):
    seen: list[tuple[int, int]] = []
    study(setup, lambda *counts: seen.append(counts), ENOUGH)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert all(done <= total for done, total in seen)


def test_nan_in_the_fp32_chain_is_an_error(setup):
    with pytest.raises(BuildError, match="not finite for image 1"):
        study(replace(setup, embeddings=np.full_like(setup.embeddings, np.nan)), quiet)


@given(st.integers(1, 300), st.data())
def test_bisection_finds_the_smallest_number_that_holds(count, data):
    first = data.draw(st.integers(0, count))
    asked = []

    def holds(number):
        assert number < count  # the last one is known
        asked.append(number)
        return number >= first

    assert least(count, holds) == first
    assert len(asked) <= 2 + np.log2(count)
