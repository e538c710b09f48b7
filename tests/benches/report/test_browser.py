"""What a reader sees, on a phone and on a desk, in light and in dark: the page in headless Chromium."""

import json
import re

import pytest

from edgeseg.benches.report import page, read_results
from edgeseg.benches.report.draw import draw
from edgeseg.benches.report.overlays import Overlays
from tests.benches.made import accuracy, agreement, demo, latency, measurement, model, write
from tests.benches.report.browser import DESKTOP, PHONE, Browser
from tests.benches.report.hostile import hostile
from tests.benches.report.test_draw import LABELS, NAMES, PREDICTED, RGB

pytestmark = pytest.mark.slow

VIEWS = [(PHONE, False), (PHONE, True), (DESKTOP, False), (DESKTOP, True)]
BODIES = [
    accuracy("a", 40.0),
    latency("a", [10.0, 11.0, 12.0]),
    model("a"),
    accuracy("b", 30.0),
    latency("b", measurements=[measurement([20.0, 21.0], reasons=["it drifted"]), measurement([30.0], 150)]),
    agreement(),
    demo(),
]

# Of each element that shows text of its own: its contrast to the nearest background that is painted behind it.
CONTRASTS = """(() => {
  const parts = text => text.match(/[\\d.]+/g).map(Number);
  const light = rgb => { const [r, g, b] = rgb.slice(0, 3).map(v => (v /= 255) <= 0.03928 ? v / 12.92
    : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = e => { for (; e; e = e.parentElement) { const c = parts(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
  const found = [];
  document.querySelectorAll('details').forEach(e => e.open = true);
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()) || e.tagName == 'title') continue;
    const style = getComputedStyle(e), ink = e.namespaceURI.endsWith('svg') ? style.fill : style.color;
    const [a, b] = [light(parts(ink)), light(behind(e))].sort((x, y) => y - x);
    found.push([Math.round(100 * (a + 0.05) / (b + 0.05)) / 100, e.textContent.slice(0, 40)]);
  }
  return found; })()"""

ROWS = "[...document.querySelectorAll('table')].map(t => [...t.rows].map(r => [...r.cells].map(c => c.innerText)))"
WIDER = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, .area') &&
  e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5).map(e => e.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    picture = draw("a picture", RGB, LABELS, PREDICTED, NAMES)
    path = folder / "report.html"
    path.write_text(page(read_results(write(folder, *BODIES)), Overlays((picture,))))
    return path


@pytest.mark.parametrize(("size", "dark"), VIEWS)
def test_page_fits_the_screen_and_its_tables_scroll_in_their_boxes(browser, report, size, dark):
    browser.open(report, size, dark)
    assert browser.js("document.documentElement.scrollWidth <= innerWidth")
    assert browser.js(WIDER) == []
    wide = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth)"
    assert browser.js(f"{wide}.every(e => {{ e.scrollLeft = 99; return e.scrollLeft > 0; }})")
    assert size == DESKTOP or browser.js(f"{wide}.length") > 0


@pytest.mark.parametrize(("size", "dark"), VIEWS)
def test_all_text_stands_out_from_what_is_behind_it(browser, report, size, dark):
    browser.open(report, size, dark)
    found = browser.js(CONTRASTS)
    assert len(found) > 100
    assert [one for one in found if one[0] < 4.5] == []
    background = browser.js("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) < 200) == dark


def test_reader_sees_title_rows_and_verdicts(browser, report):
    browser.open(report)
    assert browser.js("document.title") == "edgeseg benchmarks"
    summary, scores, classes, *_ = browser.js(ROWS)
    assert [row[:6] for row in summary[1:]] == [
        ["1", "model-a", "fp16", "40.00", "11.00", "yes"],
        ["2", "model-b", "fp16", "30.00", "21.00", "no"],
    ]
    assert [row[2] for row in scores[1:]] == ["40.00", "30.00"]
    assert [row[:3] for row in classes[1:]] == [[name, "40.00", "30.00"] for name in ("road", "car", "pole")]
    text = browser.js("document.body.innerText")
    assert "⚠ not to be trusted because it drifted" in text
    assert "edgeseg bench latency it" in text


def test_bars_are_as_long_as_their_numbers(browser, report):
    browser.open(report)
    ratio = "e => e.firstChild.getBoundingClientRect().width / (e.getBoundingClientRect().width - 2)"
    found = browser.js(f"[...document.querySelectorAll('section:nth-of-type(2) .bar')].map({ratio})")
    assert found == pytest.approx([0.4, 0.3] * 3, abs=0.03)


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_faster_and_better_stands_left_and_above(browser, report, size):
    browser.open(report, size)
    places = browser.js(
        "[...document.querySelectorAll('.area circle')].map(e => [e.cx.baseVal.value, e.cy.baseVal.value])"
    )
    (fast, high), (slow, low) = places
    assert (fast < slow, high < low) == (True, True)
    area = browser.js("(r => [r.left, r.right])(document.querySelector('.area').getBoundingClientRect())")
    assert 0 < area[0] < area[1] < size[0]
    styles = browser.js("[...document.querySelectorAll('.area circle')].map(e => getComputedStyle(e).strokeDasharray)")
    assert styles[0] != styles[1]


def test_pictures_are_shown(browser, report):
    browser.open(report, PHONE)
    found = browser.js("[...document.images].map(e => [e.alt, e.complete && e.naturalWidth])")
    assert found == [[name, RGB.shape[1]] for name in ("photo", "labels", "prediction", "errors")]
    assert browser.js("[...document.images].every(e => e.getBoundingClientRect().width > 100)")


def test_page_asks_nothing_of_anyone_and_nothing_is_wrong_with_it(browser, report):
    browser.open(report)
    assert [url for url in browser.asked if not url.startswith("data:")] == [report.as_uri()]
    assert browser.complaints == []


def test_attack_in_every_text_does_nothing(browser, tmp_path):
    bodies = [hostile(json.loads(json.dumps(body))) for body in BODIES]
    path = tmp_path / "report.html"
    path.write_text(page(read_results(write(tmp_path, *bodies))))
    browser.open(path, PHONE)
    assert browser.js("document.title") == "edgeseg benchmarks"
    assert browser.js("document.scripts.length + document.images.length") == 0
    assert browser.js("document.documentElement.scrollWidth <= innerWidth")
    assert browser.asked == [path.as_uri()]
    assert browser.complaints == []
