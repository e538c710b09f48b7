"""The page is one file of well-formed HTML, and whatever a result says stays text."""

import re
from html.parser import HTMLParser

import pytest

from edgeseg.benches.compare import compare
from edgeseg.benches.report import markdown_page, page, read_results
from edgeseg.benches.report.stages import stage_level
from tests.benches.made import (
    accuracy,
    agreement,
    class_row,
    count,
    demo,
    enveloped,
    latency,
    measurement,
    model,
    write,
)
from tests.benches.report.hostile import ATTACK, hostile

VOID = {"meta", "img"}


def compared(folder, *bodies):
    return enveloped("bench compare", compare(*read_results(write(folder, *bodies))))


@pytest.fixture
def everything(tmp_path):
    """One result of each kind."""
    counts = [{"key": str(i), "classes": [0], **{name: [100] for name in PIXELS}} for i in range(4)]
    scored = accuracy(per_image=counts)
    pair = compared(tmp_path, latency(), latency("b")), compared(tmp_path, scored, scored)
    two = [measurement([9.0, 10.0], reasons=["it drifted"]), measurement([5.0], 7, batch=2)]
    return [accuracy(), latency(measurements=two), model(), count(), agreement(), demo(), *pair]


PIXELS = ("labelled_pixels", "predicted_pixels", "correct_pixels")


class Reader(HTMLParser):
    """Tags, attributes and text of a page; fails on elements that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self._open += [] if tag in VOID else [tag]

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def shown(tmp_path, bodies):
    return page(read_results(write(tmp_path, *bodies)))


def test_every_kind_of_result_has_its_section(tmp_path, everything):
    reader = Reader(shown(tmp_path, everything))
    for words in ("Accuracy", "Agreement", "Latency", "Model", "Comparisons", "Demo", "Environment", "Commands"):
        assert words in reader.texts
    for words in (
        "not to be trusted because it drifted",
        "all of sam",
        "edgeseg bench model it",
        "B / A",
        "same label %",
    ):
        assert words in reader.texts


def test_whole_of_a_batch_is_a_total_with_its_name_in_words(tmp_path):
    texts = Reader(shown(tmp_path, [latency(measurements=[measurement([5.0], batch=2)])])).texts
    assert "graphs and copies" in texts
    assert "chain" not in texts
    assert stage_level(measurement([5.0], batch=2)["totals"][0]) == 0


def test_hostile_texts_stay_texts(tmp_path, everything):
    clean = Reader(shown(tmp_path, everything))
    reader = Reader(shown(tmp_path, [hostile(body) for body in everything]))
    assert reader.tags <= clean.tags
    assert reader.attributes <= clean.attributes
    assert not {"script", "img"} & reader.tags
    assert ATTACK.replace("\n", "?") in reader.texts


def test_hostile_file_name_stays_text(tmp_path):
    path = tmp_path / "<script>alert(1)<.json"
    write(tmp_path, latency())[0].rename(path)
    results = read_results([path])
    assert "script" not in Reader(page(results)).tags
    assert not re.search(r"(?<!\\)<", markdown_page(results))


def test_hostile_texts_cannot_leave_their_place_in_markdown(tmp_path, everything):
    text = markdown_page(read_results(write(tmp_path, *map(hostile, everything))))
    lines = text.splitlines()
    assert {line.count(" | ") for line in lines[:4] if line.startswith("|")} == {15}
    assert all(line == "" or line.startswith(("| ", "- ")) for line in lines)
    assert {re.sub(r"\\`", "", line).count("`") for line in lines} == {0, 2}
    assert not any(re.search(r"(?<!\\)<", line.split(": `")[0]) for line in lines)


def test_page_asks_for_nothing_and_runs_nothing(tmp_path, everything):
    text = shown(tmp_path, everything)
    assert "default-src 'none'" in text
    assert "http" not in text.replace("http-equiv", "")
    assert not {"script", "link", "iframe"} & Reader(text).tags


def test_page_of_many_classes_stays_small(tmp_path):
    names = [f"a class with a long name, number {i}" for i in range(847)]
    many = [accuracy(str(n), classes=[class_row(name, 50.0) for name in names]) for n in range(3)]
    assert len(shown(tmp_path, many)) < 2**20


def test_environments_are_shown_once_with_a_warning_where_there_are_several(tmp_path):
    other = latency(environment=latency()["environment"] | {"board": "AGX"})
    one, two = (Reader(shown(tmp_path, bodies)).texts for bodies in ([latency(), accuracy()], [latency(), other]))
    assert "Results [1] [2]" in one
    warning = "2 environments: times of different ones are not to be compared with each other."
    assert warning in two
    assert warning not in one


def test_date_of_a_result_stands_beside_its_file(tmp_path):
    (path,) = write(tmp_path, latency(date="2026-01-31T12:00:00Z"))
    (result,) = read_results([path])
    assert "[1] 1.json, 2026-01-31T12:00:00Z" in Reader(page([result])).texts
    assert "- [1] 1.json, 2026-01-31T12:00:00Z: `edgeseg" in markdown_page([result])


def test_markdown_is_as_published(tmp_path):
    doubtful = latency("b", [20.0, 21.0, 30.0], measurements=[measurement([20.0, 21.0, 30.0], reasons=["it drifted"])])
    bodies = accuracy(), latency(), model(), accuracy("b", 41.5), doubtful
    assert markdown_page(read_results(write(tmp_path, *bodies))) == MARKDOWN


MARKDOWN = r"""| row | model | precision | mIoU % | p50 ms | trusted | p95 ms | p99 ms | runs on | data set | canvas | classes | host peak | parameters M | GMACs | from |
| ---: | --- | --- | ---: | ---: | --- | ---: | ---: | --- | --- | --- | ---: | ---: | ---: | ---: | --- |
| 1 | model-a | fp16 | 40.00 | 11.00 | yes | 12.00 | 12.00 | tensorrt sm87-trt10.3.0 | camvid-11 test, 4 images | 480x640 | 3 | 3.0 MiB | 3.0 | 2.0 | \[1\] \[2\] \[3\] |
| 2 | model-b | fp16 | 41.50 | 21.00 | no | 30.00 | 30.00 | tensorrt sm87-trt10.3.0 | camvid-11 test, 4 images | 480x640 | 3 | 3.0 MiB | – | – | \[4\] \[5\] |

- mIoU is the mean over classes by the rules of detectron2's SemSegEvaluator
- p50, p95 and p99 are all of end\_to\_end
- the GMACs and parameters are those of all graphs but the text encoder, which runs once for a class list
- row 2: the latency is not to be trusted because it drifted

- [1] 1.json: `edgeseg bench accuracy it`
- [2] 2.json: `edgeseg bench latency it`
- [3] 3.json: `edgeseg bench model it`
- [4] 4.json: `edgeseg bench accuracy it`
- [5] 5.json: `edgeseg bench latency it`

- \[1\] \[3\] \[4\]: Orin Nano, ARMv8 (6 cores), edgeseg 0.1.0, Python 3.11.7
- \[2\] \[5\]: Orin Nano, ARMv8 (6 cores), Orin, edgeseg 0.1.0, Python 3.11.7, tensorrt 10.3.0, power mode 15W, governor performance
"""  # noqa: E501 - a table of Markdown has its rows on one line
