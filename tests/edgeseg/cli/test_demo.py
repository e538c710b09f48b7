"""`edgeseg demo` on the shipped weights, as `make demo` runs it but for the photos."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from edgeseg.cli import group
from edgeseg.errors import InputError

ROOT = Path(__file__).resolve().parents[3]
PRECISIONS = ["fp32", "fp16", "int8"]

pytestmark = [pytest.mark.torch, pytest.mark.onnx, pytest.mark.tensorrt, pytest.mark.slow]


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """The folder that a demo left."""
    folder = tmp_path_factory.mktemp("demo")
    with Image.open(ROOT / "docs/overlay.jpg") as photo:
        photo.resize((480, 320)).save(folder / "one.png")
        photo.resize((320, 320)).save(folder / "two.png")
    photos = [str(folder / name) for name in ("one.png", "two.png")]
    words = ["demo", str(ROOT / "weights/ebseg-tiny.safetensors"), *photos, "--size", "384x480", "-o", str(folder)]
    group.main(words, prog_name="edgeseg", standalone_mode=False)
    return folder


def test_every_precision_leaves_label_maps_and_overlays(left):
    for precision in PRECISIONS:
        for photo in ("one", "two"):
            names = sorted(path.name for path in (left / precision).glob(f"{photo}*"))
            assert len(names) == 3, names  # label map, overlay, and a record


def test_the_table_is_kept_as_json(left):
    body = json.loads((left / "demo.json").read_text("utf-8"))
    rows = body["precisions"]
    assert [row["precision"] for row in rows] == PRECISIONS
    assert rows[0]["agreement"] == 1
    assert min(row["agreement"] for row in rows) > 0.95
    sizes = [row["size_bytes"] for row in rows]
    assert sizes[0] > max(sizes[1:])  # int8 on a CPU keeps the head in fp32
    assert body["compiled"].startswith("tensorrt_rtx: compiled")


def test_the_report_shows_each_precision(left):
    page = (left / "report.html").read_text("utf-8")
    for precision in PRECISIONS:
        assert precision in page


def test_photos_whose_results_would_have_one_name_are_refused_at_once(tmp_path):
    photos = [tmp_path / "a.png", tmp_path / "a.jpg"]
    for photo in photos:
        Image.new("RGB", (8, 8)).save(photo)
    words = ["demo", str(ROOT / "weights/ebseg-tiny.safetensors"), *map(str, photos), "-o", str(tmp_path / "out")]
    with pytest.raises(InputError, match="two of them are called a"):
        group.main(words, prog_name="edgeseg", standalone_mode=False)
    assert not (tmp_path / "out").exists()
