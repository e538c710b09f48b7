"""A test that cannot run here is skipped, and on CI it has failed."""

import os

import pytest

from edgeseg.bundle import Bundle
from tests.conftest import HARDWARE, held, pytest_configure
from tests.edgeseg.tiny_bundle import make_fake_bundle


def report(reason, **more):
    """Of a test that skipped itself, as pytest makes it."""
    where = ("tests/test_a.py", 3, f"Skipped: {reason}")
    return pytest.TestReport(
        "tests/test_a.py::test_a", ("tests/test_a.py", 3, ""), {}, "skipped", where, "call", **more
    )


def test_a_missing_need_skips_at_home(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    assert held(report("no such thing")).skipped


def test_a_missing_need_fails_on_ci_with_its_reason(monkeypatch):
    monkeypatch.setenv("CI", "true")
    found = held(report("no such thing"))
    assert found.failed
    assert found.longrepr.endswith("no such thing")


@pytest.mark.parametrize("reason", HARDWARE)
def test_a_gpu_is_not_promised_on_ci(monkeypatch, reason):
    monkeypatch.setenv("CI", "true")
    assert held(report(reason)).skipped


def test_a_failure_that_is_expected_is_no_skip(monkeypatch):
    monkeypatch.setenv("CI", "true")
    assert held(report("", wasxfail="known")).skipped


def test_a_file_that_cannot_be_read_for_want_of_a_package_fails_on_ci(monkeypatch):
    monkeypatch.setenv("CI", "true")
    where = ("tests/test_a.py", 3, "Skipped: could not import 'tensorrt_rtx'")
    assert held(pytest.CollectReport("tests/test_a.py", "skipped", where, [])).failed


@pytest.mark.parametrize(
    ("count", "shares"), [(1, [[2, 3, 5]]), (2, [[2, 5], [3]]), (4, [[2], [3], [5], [2]])], ids=["one", "two", "four"]
)
def test_processes_share_out_the_cores(monkeypatch, count, shares):
    found = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 3, 2}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cores: found.append(cores), raising=False)
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", str(count))
    for number in range(count):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", f"gw{number}")
        pytest_configure()
    assert found == shares


def test_without_processes_every_core_is_used(monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: pytest.fail("some were taken away"), raising=False)
    pytest_configure()


def test_what_many_files_read_is_made_once(made_once):
    calls = []

    def make(folder) -> Bundle:
        calls.append(folder)
        return make_fake_bundle(folder / "fake.bundle")

    first, second = made_once("once", make), made_once("once", make)
    assert first.path == second.path
    assert second.manifest == first.manifest
    assert len(calls) == 1
