import dataclasses
import json

import pytest

from edgeseg.calibration.ranges import GraphRanges, Images, Range, Ranges, Smoothing, load_ranges, save_ranges
from edgeseg.errors import InputError, StorageError

pytestmark = pytest.mark.onnx

RANGES = Ranges(
    1,
    Images("images", "0" * 64, 3, 0, 1, ("bad.jpg",)),
    {
        "sam": GraphRanges(
            "1" * 64, {"/q/MatMul": Range(4.0, 3.5, "99.99")}, {"/q/MatMul": Smoothing(0.5, (1.0, 2.5))}, {"/Add": 7.25}
        )
    },
)


def test_what_is_saved_is_loaded(tmp_path):
    save_ranges(tmp_path / "ranges.json", RANGES)
    assert load_ranges(tmp_path / "ranges.json") == RANGES


def test_equal_ranges_are_equal_bytes_that_people_can_read(tmp_path):
    for name in "ab":
        save_ranges(tmp_path / name, dataclasses.replace(RANGES))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert '"percentile": "99.99"' in (tmp_path / "a").read_text()


def changed(**changes):
    value = json.loads(json.dumps(dataclasses.asdict(RANGES)))
    for path, new in changes.items():
        *folders, last = path.split("__")
        place = value
        for folder in folders:
            place = place[folder]
        place[last] = new
    return json.dumps(value)


HOSTILE = {
    "no json": "hello",
    "truncated": changed()[:-20],
    "binary": "\0\1",
    "list": "[]",
    "unknown key": changed(more=1),
    "missing key": '{"schema": 1}',
    "later schema": changed(schema=2),
    "wrong type": changed(graphs__sam__weights=5),
    "text for a number": changed(graphs__sam__peaks={"/Add": "7"}),
    "negative range": changed(graphs__sam__peaks={"/Add": -1.0}),
    "NaN": changed(graphs__sam__peaks={"/Add": float("nan")}),
    "infinity": changed(graphs__sam__peaks={"/Add": float("inf")}),
    "beyond float": changed(graphs__sam__peaks={"/Add": 1.5}).replace("1.5", "1e999"),
    "factor of zero": changed(graphs__sam__smoothing={"/q": {"alpha": 0.5, "factors": [1.0, 0.0]}}),
    "deep": "[" * 100_000,
    "twice": changed().replace("{", '{"schema": 1, ', 1),
    "alpha beyond float": changed(graphs__sam__smoothing={"/q": {"alpha": 1.5, "factors": [1.0]}}).replace(
        "1.5", "1e999"
    ),
    "alpha that is no number": changed(graphs__sam__smoothing={"/q": {"alpha": float("nan"), "factors": [1.0]}}),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_file_that_is_no_ranges_file_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "ranges.json").write_text(text)
    with pytest.raises(InputError, match=r"cannot read the ranges .*; calibrate again with --images") as caught:
        load_ranges(tmp_path / "ranges.json")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("what", ["missing", "folder", "huge"])
def test_no_file_or_an_absurd_one_is_refused(tmp_path, what):
    path = tmp_path / "ranges.json"
    if what == "folder":
        path.mkdir()
    if what == "huge":
        with path.open("wb") as file:
            file.truncate(1 << 30)
    with pytest.raises(InputError, match="it is no file of at most 64 MiB"):
        load_ranges(path)


def test_folder_that_is_missing_is_said(tmp_path):
    with pytest.raises(StorageError, match="there is no folder"):
        save_ranges(tmp_path / "nowhere" / "ranges.json", RANGES)
