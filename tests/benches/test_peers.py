"""The harness of `benches/peers` on trivial sides: turns, ratios, memory, reasons. No peer runs here."""

import inspect
import json
import os
import subprocess
import sys
from argparse import ArgumentTypeError

import numpy as np
import pytest
from PIL import Image

from benches.peers import automatic, int8_cpu, ptq, turns
from benches.peers import run as command
from benches.peers.comparisons import COMPARISONS
from benches.peers.options import place
from benches.peers.result import same, summarise, time_ratio, verdict
from benches.peers.side import Comparison, Side, load
from benches.peers.table import comparison_lines
from benches.peers.turns import take_turns
from edgeseg.environment import core_count
from edgeseg.segments.runs import encode_all

MIB = 2**20
FAKES = "tests.benches.fake_peers"
SIDES = [side for one in (*COMPARISONS, *int8_cpu.COMPARISONS, automatic.comparison(32)) for side in one.sides]
POSITIONALS = {ptq: 4, automatic: 3}


def side(name, opens="sleeper", needs=(), **options):
    options |= {"name": name} if opens == "sleeper" else {}
    made = tuple(f"{FAKES}:{need}" for need in needs)
    return Side(f"x/{name}", f"the {name}", f"{FAKES}:{opens}", "nothing", made, options=options)


def measured(work, *sides, rounds=2, watch=print):
    """The summary of a comparison of these sides."""
    compared = Comparison("x", "a title", "a sleep", sides)
    return summarise(compared, take_turns(work, sides, rounds, watch), work)


def by_name(body):
    return {row["name"]: row for row in body["sides"]}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The summary of one side; never change it."""
    return measured(tmp_path_factory.mktemp("alone"), side("a"))


def test_sides_warm_up_one_after_the_other_and_then_take_turns(tmp_path):
    measured(tmp_path, side("a"), side("b"), side("c"), rounds=3)
    assert (tmp_path / "order.txt").read_text().split() == ["a", "b", "c"] * 4


def test_a_slower_peer_has_a_ratio_above_one(tmp_path):
    body = measured(tmp_path, side("a"), side("b", seconds=0.5), rounds=3)
    ours, theirs = body["sides"]
    against = theirs["against"]
    assert ours["against"] is None
    assert len(theirs["seconds"]) == 3
    assert theirs["min_s"] >= 0.5
    assert 1 < against["time_ratio"]["low"] <= against["time_ratio"]["median"] <= against["time_ratio"]["high"]
    assert against["verdict"] == "ahead"
    assert against["same"] == {"measure": "equal labels", "value": 1.0}


def test_peak_memory_is_the_whole_process_and_the_running_peak_leaves_the_first_run_out(tmp_path):
    body = measured(tmp_path, side("a", "hungry", first_mib=0), side("b", "hungry", first_mib=300))
    lean, hungry = body["sides"]
    assert hungry["peak_bytes"] - lean["peak_bytes"] > 250 * MIB
    assert hungry["running_peak_bytes"] - lean["running_peak_bytes"] < 100 * MIB
    assert hungry["against"]["memory_ratio"] == hungry["peak_bytes"] / lean["peak_bytes"]


def test_peak_memory_does_not_begin_with_that_of_the_process_that_measures(tmp_path):
    held = np.ones(600 * MIB, np.uint8)
    (row,) = measured(tmp_path, side("a"), rounds=1)["sides"]
    assert 0 < row["peak_bytes"] < held.size


def test_what_a_side_prints_is_no_answer(tmp_path):
    (row,) = measured(tmp_path, side("a", "chatty"))["sides"]
    assert len(row["seconds"]) == 2
    assert (tmp_path / "log/x-a.txt").read_text().split() == ["opening", *["running"] * 3]


def test_a_side_that_cannot_be_had_leaves_the_others_measured(tmp_path):
    body = measured(tmp_path, side("a"), side("b", "missing"), side("c", needs=["not_made"]))
    assert list(by_name(body)) == ["x/a"]
    assert body["left_out"] == [
        {"name": "x/b", "title": "the b", "reason": "there is nothing in WORK", "failed": False},
        {"name": "x/c", "title": "the c", "reason": "no network", "failed": False},
    ]


@pytest.mark.parametrize("runs", [0, 1, 2])
def test_a_side_that_fails_at_some_run_leaves_the_others_measured(tmp_path, runs):
    body = measured(tmp_path, side("b", "broken", runs=runs), side("a"))
    assert len(by_name(body)["x/a"]["seconds"]) == 2
    assert by_name(body)["x/a"]["against"] is None
    assert body["left_out"] == [{"name": "x/b", "title": "the b", "reason": "StopIteration", "failed": True}]


def test_a_side_that_failed_gets_no_further_turn(tmp_path):
    heard: list[str] = []
    measured(tmp_path, side("b", "broken", runs=1), rounds=3, watch=heard.append)
    assert heard == ["x/b: opening, and a first run", "x/b: run 1 of 3"]


def test_a_side_that_cannot_go_on_gets_no_further_turn(tmp_path):
    heard: list[str] = []
    body = measured(tmp_path, side("b", "leaver", runs=2), side("a"), rounds=3, watch=heard.append)
    assert heard.count("x/b: run 1 of 3") == heard.count("x/b: run 2 of 3") == 1
    assert "x/b: run 3 of 3" not in heard
    reason = "the licence has run out"
    assert body["left_out"] == [{"name": "x/b", "title": "the b", "reason": reason, "failed": False}]


def test_a_side_is_left_out_rather_than_opened_in_the_last_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(turns, "free_bytes", lambda: 3 << 30)
    body = measured(tmp_path, side("a"))
    assert body["left_out"][0]["reason"].startswith("3.0 GiB of memory are free")
    assert body["sides"] == []


def test_free_memory_is_what_the_kernel_calls_available(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable:   3000 kB\n")
    assert turns.free_bytes(tmp_path / "meminfo") == 3000 * 1024


def test_what_a_side_needs_is_made_first(tmp_path):
    (row,) = measured(tmp_path, side("a", "reader", needs=["made"]))["sides"]
    assert row["seconds"]
    assert (tmp_path / "made.txt").read_text() == "made\n"


@pytest.mark.parametrize(
    ("theirs", "expected"), [([2.0, 3.0], "ahead"), ([0.5, 3.0], "open"), ([0.5, 0.9], "behind"), ([1.0, 2.0], "open")]
)
def test_verdict_needs_every_round(theirs, expected):
    assert verdict(time_ratio(theirs, [1.0, 1.0])) == expected


def test_ratio_is_that_of_the_medians_and_its_spread_that_of_the_rounds():
    assert time_ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == {"median": 4 / 3, "low": 1.0, "high": 3.0}


def test_results_are_compared_by_kind():
    assert same(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 0])) == {"measure": "equal labels", "value": 0.75}
    assert same(np.array([[3.0, 4.0]]), np.array([[4.0, 3.0]])) == {"measure": "cosine", "value": pytest.approx(0.96)}
    assert same(np.zeros(3), np.zeros(4)) is None


def test_table_says_where_this_project_is_slower(tmp_path):
    slow, fast = side("a", seconds=0.5), side("b")
    text = "\n".join(comparison_lines(measured(tmp_path, slow, fast)))
    assert "edgeseg was SLOWER in every round than: the b" in text


@pytest.mark.parametrize(("shares", "warned"), [([2.0, 9.9], False), ([2.0, 40.0], True), ([None, None], False)])
def test_table_warns_of_a_machine_that_was_not_quiet(alone, shares, warned):
    body = alone | {"sides": [side | {"others_percent": shares} for side in alone["sides"]]}
    text = "\n".join(comparison_lines(body))
    assert ("NOT QUIET: other programs took up to 40 % of the processors (median 21 %)" in text) == warned


def test_a_program_beside_a_run_is_noticed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        (row,) = measured(tmp_path, side("a", seconds=1.0), rounds=1)["sides"]
        other.kill()
    assert row["others_percent"][0] > 20 / core_count()


def test_command_writes_what_it_prints_without_paths(tmp_path, monkeypatch, capsys):
    sides = (side("a"), side("b"), side("c", "missing"))
    monkeypatch.setattr(command, "COMPARISONS", (Comparison("x", "a title", "a sleep", sides),))
    output = tmp_path / "result.json"
    assert command.main([str(tmp_path), "--rounds", "1", "-o", str(output)]) == 0
    body = json.loads(output.read_text())
    assert body["command"] == "python benches/peers/run.py WORK --rounds 1"
    assert [row["name"] for row in body["comparisons"][0]["sides"]] == ["x/a", "x/b"]
    assert str(tmp_path) not in output.read_text()
    assert "the c: left out, there is nothing in WORK" in capsys.readouterr().out


def test_command_fails_when_a_side_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "COMPARISONS", (Comparison("x", "", "", (side("a", "broken", runs=0),)),))
    assert command.main([str(tmp_path), "--rounds", "1"]) == 1


@pytest.mark.parametrize(
    "script", [command, int8_cpu, ptq, automatic], ids=lambda module: module.__name__.rpartition(".")[2]
)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rounds", "0"], "'0' is no number from 1"),
        (["--rounds", "-1"], "'-1' is no number from 1"),
        (["-o", "no/such/result.json"], "there is no folder no/such"),
        (["-o", "."], ". is a folder"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_anything_runs(script, words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "take_turns", None)
    positional = [str(tmp_path)] * POSITIONALS.get(script, 1)
    with pytest.raises(SystemExit) as raised:
        script.main([*positional, *words])
    assert raised.value.code == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_may_not_be_written_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    (tmp_path / "old.json").touch()
    assert place(str(tmp_path / "old.json")) == tmp_path / "old.json"
    with pytest.raises(ArgumentTypeError, match=r"new\.json cannot be written"):
        place(str(tmp_path / "new.json"))


def test_named_sides_bring_the_one_that_they_are_held_against():
    chosen = command.select(COMPARISONS, ["sam/torch", "sam-int8/edgeseg"])
    assert [[side.name for side in one.sides] for one in chosen] == [["sam/edgeseg", "sam/torch"], ["sam-int8/edgeseg"]]
    assert command.select(COMPARISONS, ["sam"]) == [one for one in COMPARISONS if one.name == "sam"]
    with pytest.raises(SystemExit, match=r"there is no sma; there are ebseg, ebseg/compile"):
        command.select(COMPARISONS, ["ebseg", "sma"])


@pytest.mark.parametrize("each", SIDES, ids=lambda side: side.name)
def test_every_side_can_be_called_as_the_table_says(each, tmp_path):
    inspect.signature(load(each.opens)).bind(tmp_path, **each.options)
    for need in each.needs:
        inspect.signature(load(need)).bind(tmp_path)


@pytest.mark.parametrize("one", COMPARISONS, ids=lambda one: one.name)
def test_everything_is_held_against_this_project(one):
    assert one.sides[0].ours
    assert {side.name.partition("/")[0] for side in one.sides} == {one.name}


def test_automatic_masks_of_two_sides_are_held_against_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(automatic, "comparison", lambda _: Comparison("x", "", "", (side("a"), side("b"))))
    for name in ("x/a", "x/b"):
        automatic.counts_file(tmp_path, name).write_text("7")
    Image.fromarray(np.zeros((3, 4, 3), np.uint8)).save(tmp_path / "photo.png")
    (tmp_path / "weights").touch()
    output = tmp_path / "result.json"
    words = [tmp_path, tmp_path / "weights", tmp_path / "photo.png", "--per-side", "8", "--rounds", "1", "-o", output]
    assert automatic.main([str(word) for word in words]) == 0
    body = json.loads(output.read_text())
    assert body["command"] == "python benches/peers/automatic.py WORK mobile_sam.pt photo.png --per-side 8 --rounds 1"
    assert [row["masks"] for row in body["comparisons"][0]["sides"]] == [7, 7]
    assert str(tmp_path) not in output.read_text()


def test_what_two_generators_gave_is_told_as_masks_on_each_pixel(tmp_path):
    masks = np.zeros((3, 4, 5), bool)
    masks[0, :2], masks[1, 1:, 2:], masks[2] = True, True, True
    runs = encode_all(masks, (4, 5))
    covered = automatic.told(tmp_path, "x/a", (4, 5), [runs.of(i).tolist() for i in range(3)])
    assert (covered == masks.sum(axis=0)).all()
    assert automatic.counts_file(tmp_path, "x/a").read_text() == "3"
