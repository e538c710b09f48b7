import pytest

from edgeseg.engines.timing import LEAST_ROUNDS, LOST_AFTER, MOST_ROUNDS, WARM_UP, added, measure, speed


class Machine:
    """A clock, and runs that move it."""

    def __init__(self, **seconds: float) -> None:
        self.now, self.seconds = 0.0, seconds
        self.order: list[str] = []

    def runs(self):
        return {name: lambda name=name: self.run(name) for name in self.seconds}

    def run(self, name):
        self.order.append(name)
        self.now += self.seconds[name]

    def measured(self):
        return measure(self.runs(), lambda: self.now)


def test_runs_take_turns_after_a_warm_up():
    machine = Machine(a=1.0, b=1.0)
    machine.measured()
    assert machine.order[: 2 * WARM_UP] == ["a", "a", "b", "b"]
    assert machine.order[2 * WARM_UP :][:8] == ["a", "b", "b", "a", "a", "b", "b", "a"]


@pytest.mark.parametrize(("seconds", "rounds"), [(3600.0, LEAST_ROUNDS), (1e-6, MOST_ROUNDS)])
def test_rounds_are_bounded_by_time_and_number(seconds, rounds):
    assert len(Machine(a=seconds).measured()["a"]) == rounds


def test_what_is_far_behind_is_not_run_to_the_end():
    found = Machine(fast=1e-6, slow=1e-3).measured()
    assert (len(found["fast"]), len(found["slow"])) == (MOST_ROUNDS, LOST_AFTER)


def test_speed_is_the_median_of_rounds_with_its_quartiles():
    found = speed([1.0, 1.0, 1.0, 1.0, 1.0], [2.0, 1.0, 3.0, 2.0, 4.0])
    assert (found.median, found.low, found.high) == (2.0, 2.0, 3.0)
    assert str(found) == "2.00x (2.00 to 3.00)"


def test_speed_counts_the_rounds_in_which_both_ran():
    assert speed([1.0], [2.0, 9.0, 9.0]).median == 2.0


def test_canvases_are_added_round_by_round():
    assert added([{"a": [1.0, 2.0, 3.0]}, {"a": [10.0, 20.0]}]) == {"a": [11.0, 22.0]}
