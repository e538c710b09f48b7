import pytest

from edgeseg.engines.cli import parse_bytes, parse_canvas, parse_targets
from edgeseg.errors import InputError


@pytest.mark.parametrize(
    ("text", "count"), [("4GiB", 4 << 30), ("512MiB", 512 << 20), ("1.5G", 3 << 29), ("4096", 4096), ("8KB", 8192)]
)
def test_sizes_are_read(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "GiB", "-1G", "0", "0.1", "4 apples", "4TiB", pytest.param("9" * 400, id="long")])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InputError, match="4GiB"):
        parse_bytes(text)


def test_targets_are_read():
    assert parse_targets("SM86, sm89") == ("sm86", "sm89")
    assert parse_targets(None) == ()


@pytest.mark.parametrize("text", ["", "sm86,", "orin", "86"])
def test_what_is_no_target_is_refused(text):
    with pytest.raises(InputError, match="sm86,sm89"):
        parse_targets(text)


def test_what_is_no_canvas_is_refused():
    assert parse_canvas("640x864") == (640, 864)
    with pytest.raises(InputError, match="640x864"):
        parse_canvas("640*864")
