"""A test that cannot run here is skipped, and on CI it has failed."""

import pytest

from tests.conftest import HARDWARE, held


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
