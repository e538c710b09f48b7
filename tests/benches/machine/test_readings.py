import threading

from edgeseg.benches.machine.readings import Range, Reading, Watch


class Counting:
    """A source whose value grows; sets an event once it was read so often."""

    def __init__(self, reads=3, throttles=()):
        self.values, self._reads, self._throttles = 0, reads, throttles
        self.enough = threading.Event()

    def readings(self):
        self.values += 1
        if self.values >= self._reads:
            self.enough.set()
        yield Reading("clock_mhz", "gpu", float(self.values))

    def throttles(self):
        if self.values == 2:
            yield from self._throttles


def test_ranges_are_of_everything_read_while_entered():
    source = Counting()
    with Watch([source], period_s=0.001) as watch:
        assert source.enough.wait(10)
    last = source.values
    assert watch.ranges() == (Range("clock_mhz", "gpu", 1.0, (1 + last) / 2, float(last)),)


def test_throttle_of_one_moment_is_remembered():
    source = Counting(throttles=("GPU: power brake",))
    with Watch([source], period_s=0.001) as watch:
        assert source.enough.wait(10)
    assert watch.throttles == {"GPU: power brake"}


def test_measurement_shorter_than_a_period_is_read_once():
    with Watch([Counting()], period_s=60) as watch:
        pass
    assert watch.ranges() == (Range("clock_mhz", "gpu", 1.0, 1.0, 1.0),)


def test_thread_ends_with_the_measurement():
    before = threading.active_count()
    with Watch([Counting()], period_s=60):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
