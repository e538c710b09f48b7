"""PnP-OVSS measured by the commands that measure every family: its settings, and a list of classes for each photo."""

import json
import re

import numpy as np
import pytest
from PIL import Image

import edgeseg
from edgeseg.benches.latency.classes import stand_in
from edgeseg.benches.model.cost import count
from edgeseg.benches.report import read_result
from edgeseg.benches.report.overlays import run_again
from edgeseg.bundle import Bundle
from edgeseg.cli import main
from edgeseg.errors import GateError, InputError
from edgeseg.pipelines.pnp_captions import captions
from tests.export import small_blip
from tests.test_docs import keys, section

pytestmark = [pytest.mark.torch, pytest.mark.onnx, pytest.mark.slow]

NAMES = ["cat", "dog", "table"]
LISTS = {"a": ["dog"], "b": ["cat", "table"]}
SETTINGS = {"filter": "none", "rounds": "2"}
SET = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The small one, built for the CPU."""
    folder = tmp_path_factory.mktemp("blip")
    with pytest.MonkeyPatch.context() as patch:
        made = small_blip.export_small(folder, patch)
    with edgeseg.open(made.path, "onnxruntime", "fp32"):
        return made.path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set of two photos with labels, and the lists of their classes."""
    root, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in ("images", "labels"):
        (root / name).mkdir()
    for name in LISTS:
        Image.fromarray(random.integers(0, 256, (60, 80, 3), np.uint8)).save(root / f"images/{name}.png")
        Image.fromarray(random.integers(0, 3, (60, 80), np.uint8)).save(root / f"labels/{name}.png")
    (root / "classes.txt").write_text("\n".join(NAMES))
    (root / "lists.json").write_text(json.dumps(LISTS))
    return root


def answer(capsys, *words):
    capsys.readouterr()
    assert main(["bench", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_accuracy_goes_by_settings_and_by_the_classes_of_each_photo(bundle, folder, tmp_path, capsys):
    words = ["accuracy", bundle, "--dataset", "folder", "--root", folder, "--backend", "onnxruntime", *SET]
    lists = ["--class-lists", folder / "lists.json"]
    body = answer(capsys, *words, *lists, "-o", tmp_path / "result.json")
    assert (body["settings"], body["class_lists"]) == (SETTINGS, str(folder / "lists.json"))
    wanted = np.zeros((3, 4), int)
    with edgeseg.open(bundle, "onnxruntime") as segmenter:
        for name, only in LISTS.items():
            settings = SETTINGS | {"only": only}
            found = segmenter(folder / f"images/{name}.png", NAMES, settings=settings).labels
            labels = np.asarray(Image.open(folder / f"labels/{name}.png"))
            np.add.at(wanted, (labels, np.minimum(found, 3)), 1)
    assert body["confusion"] == wanted.tolist()
    assert body["confusion"] != answer(capsys, *words)["confusion"]
    said = section("json.md", "edgeseg bench accuracy").split("a key more for each:")[1].split("\n\n")[0]
    assert all(f"`{key}`" in said for key in ("settings", "class_lists", "top_k"))
    pictures = run_again(read_result(tmp_path / "result.json"), 2, lambda *_: None)
    assert "when it was scored" not in pictures[0].title  # as right as then
    assert main(["bench", "report", str(tmp_path / "result.json"), "-o", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "set: filter=none, rounds=2" in page
    assert f"those that {folder / 'lists.json'} lists" in page


def test_a_photo_without_a_list_is_named(bundle, folder, tmp_path, capsys):
    (tmp_path / "lists.json").write_text('{"a": ["cat"]}')
    words = ["--dataset", "folder", "--root", str(folder), "--class-lists", str(tmp_path / "lists.json")]
    assert main(["bench", "accuracy", str(bundle), *words]) == InputError.exit_code
    assert "names no b.png" in capsys.readouterr().err


def test_stopping_early_is_measured_against_all_rounds(bundle, folder, capsys):
    names = ["--classes", ",".join(NAMES), "--set", "filter=none", "--set", "patches=1"]
    words = ["rejection", bundle, folder / "images", "--backend", "onnxruntime", *names, "--runs", "1"]
    body = answer(capsys, *words, "--vary", "early_stop=0,0.01")
    assert body["settings"] == {"filter": "none", "patches": "1"}
    assert [row["way"] for row in body["rows"]] == ["as usual", "early_stop=0", "early_stop=0.01"]
    runs = [row["graph_runs"] for row in body["rows"]]
    assert runs[0] == runs[1] == dict.fromkeys(("blip_vit", "blip_itm_cam", "score"), 4)
    assert runs[2] == dict.fromkeys(runs[0], 2)
    assert [row["agreement"] == 1 for row in body["rows"]] == [True, True, False]
    _, row = section("json.md", "edgeseg bench rejection").split("A row:")
    assert keys(row) == list(body["rows"][0])
    assert main(["bench", *map(str, words), "--vary", "early_stop=1", "--top-k", "2"]) == InputError.exit_code


def test_cost_is_that_of_the_captions_of_so_many_classes(bundle, capsys):
    found = {}
    for classes in (2, 10):
        body = answer(capsys, "model", bundle, "--count-only", "--count", classes)
        found[classes] = {row["graph"]: row["macs"]["total"] for row in body["graphs"]}
    assert found[2]["blip_vit"] == found[10]["blip_vit"]
    opened = Bundle.open(bundle)
    spec, words = opened.graph("blip_itm_cam", "fp32", (96, 96)), stand_in(opened, 2)
    tokens = captions(words, words.names, 40).ids.shape[1]
    wanted = count(opened.file(spec.file), {"I": 1, "B": 1, "T": tokens}).total_macs
    assert found[2]["blip_itm_cam"] == wanted < found[10]["blip_itm_cam"]


def test_int8_that_misses_the_gate_is_refused_and_can_be_repaired(tmp_path, folder, capsys, monkeypatch):
    """Of the image encoder, the only graph that has int8; with such weights all of its blocks go back."""
    made = small_blip.export_small(tmp_path, monkeypatch).path
    assert main(["quantize", str(made), "--precision", "int8", "--images", str(folder / "images")]) == 0
    build = ["build", str(made), "--backend", "onnxruntime", "--precision", "int8"]
    assert main(build) == GateError.exit_code
    said = capsys.readouterr().err
    assert re.search(r"cam of blip_itm_cam at 96x96: cosine 0\.\d+, at least 0\.99 wanted", said)
    assert "build with --repair" in said
    assert main([*build, "--repair"]) == 0
    found = Bundle.open(made).manifest
    assert {engine.graph for engine in found.engines if engine.precision == "int8"} >= {"blip_vit", "blip_itm_cam"}
    words = ["--precision", "mixed", "--images", str(folder / "images")]
    assert main(["quantize", str(made), *words]) == InputError.exit_code
    assert "its classes are no embeddings" in capsys.readouterr().err
