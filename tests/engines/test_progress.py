import os
import signal
import threading
import types

import pytest

from edgeseg.engines.progress import Interrupt, Phases, WorkBar, deferred_interrupt, monitor


def test_share_grows_through_nested_phases():
    phases, shares = Phases(), []
    phases.start("build", None, 2)
    phases.start("parse", "build", 2)
    for step in range(2):
        phases.step("parse", step)
        shares.append(phases.share())
    phases.finish("parse")
    phases.step("build", 0)
    shares.append(phases.share())
    assert shares == [0.25, 0.5, 0.5]


@pytest.fixture
def ctrl_c():
    """Python's own handler of SIGINT: a process that a shell put in the background starts without it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_is_raised_when_the_work_is_done():
    reached = []

    def work() -> None:
        with deferred_interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGINT)
            reached.append(interrupt.asked)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached == [True]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_deferring_works_outside_the_main_thread():
    seen = []

    def work() -> None:
        with deferred_interrupt() as interrupt:
            seen.append(interrupt.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_monitor_moves_the_bar_and_asks_to_stop():
    shares: list[float] = []
    interrupt = Interrupt()
    watcher = monitor(types.SimpleNamespace(IProgressMonitor=object), shares.append, interrupt)
    watcher.phase_start("build", None, 4)
    assert watcher.step_complete("build", 0)
    interrupt.asked = True
    assert not watcher.step_complete("build", 1)
    watcher.phase_finish("build")
    assert shares == [0.25, 0.5]


def test_sdk_without_monitors_gets_none():
    assert monitor(types.SimpleNamespace(), lambda _: None, Interrupt()) is None


def test_bar_counts_pieces_by_weight(capsys):
    with WorkBar("building", {"small": 1.0, "large": 3.0}, shown=False) as bar:
        with bar.piece("small") as advance:
            advance(0.5)
            assert bar.share == 0.125
        with bar.piece("large"):
            assert bar.share == 0.25
        assert bar.share == 1.0
    assert capsys.readouterr() == ("", "")
