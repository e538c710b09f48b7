import pytest

from edgeseg.benches.report.html import Html, escaped, tag
from edgeseg.benches.report.table import Cell, Table, markdown, milliseconds, number


def test_text_is_escaped_once_and_html_is_left():
    assert tag("p", "<b>", Html("<i>"), title='"') == '<p title="&quot;">&lt;b&gt;<i></p>'


@pytest.mark.parametrize("hostile", ["\x1b[31m", "\u202e", "\ud800", "\0", "a\nb"])
def test_what_steers_a_reader_is_replaced(hostile):
    assert escaped(hostile) == escaped("".join(c if c.isprintable() else "?" for c in hostile))
    assert "?" in escaped(hostile)
    escaped(hostile).encode()


def test_endless_text_is_cut():
    assert len(escaped("x" * 10**6)) == 4000


def test_markdown_shows_hostile_text_as_it_is():
    assert markdown("<b> `x` | a_b*\n[c](d) & #") == r"\<b\> \`x\` \| a\_b\* \[c\](d) \& \#"


def test_markdown_table_sets_numbers_right():
    table = Table(["name", "ms"], [[Cell("a|b"), number(1.234)], [Cell("c"), number(None)]])
    assert table.markdown() == "| name | ms |\n| --- | ---: |\n| a\\|b | 1.23 |\n| c | – |\n"


@pytest.mark.parametrize(("share", "width"), [(0.5, "50.0%"), (7.0, "100.0%"), (-1.0, "0.0%")])
def test_bar_stays_in_its_box(share, width):
    assert f"width: {width}" in Table(["a"], [[Cell("x", share, number=True)]]).html()


@pytest.mark.parametrize(("value", "text"), [(0.123, "0.12"), (12.3, "12.30"), (123.4, "123.4"), (12345.6, "12,346")])
def test_milliseconds_have_the_digits_that_say_something(value, text):
    assert milliseconds(value).text == text
