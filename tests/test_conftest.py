"""A test that cannot run here is skipped, and on CI it fails."""

import pytest

from tests.conftest import skip_or_fail


def test_a_missing_need_skips_at_home(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no such thing"):
        skip_or_fail("no such thing")


def test_a_missing_need_fails_on_ci(monkeypatch):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no such thing"):
        skip_or_fail("no such thing")
