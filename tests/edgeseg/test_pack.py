"""`edgeseg pack` and `inspect`: the lean copy holds what was asked for, whole, and says what it is."""

import json
import os
from dataclasses import replace

import pytest

from edgeseg.bundle import Bundle
from edgeseg.bundle.pack import PackChoice, pack
from edgeseg.cli import main
from edgeseg.errors import BundleError, InputError, StorageError
from edgeseg.schema import Gate, Selection
from tests.edgeseg.small_bundle import CANVASES, RTX, add_engine, engine, make, rewrite, tree

TEXT = {"graphs/fp32/text-any.onnx", "graphs/fp32/text.bin", "tokenizer.json", "reference/text-0.npz"}


@pytest.fixture
def bundle(tmp_path):
    """Engines of the fp16 graphs for one device, and of one of them for a second device."""
    made = make(tmp_path / "a.bundle")
    with made.edit() as edit:
        for canvas in CANVASES:
            spec = made.graph("sam", "fp16", canvas)
            add_engine(edit, engine(spec, edit.digest(spec.file).sha256, gate=Gate(True, 0.9995, 0.998)))
        add_engine(edit, engine(made.graph("sam", "fp16", (64, 64)), device="sm86-rtx1.7.1"))
    return made


def packed(bundle, **choice):
    """The files of the copy."""
    made = pack(bundle, bundle.path.with_name("b.bundle"), PackChoice(**choice))
    made.verify()
    return set(made.manifest.files)


def test_one_precision_without_its_engines(bundle):
    references = {"reference/64x64-0.npz", "reference/64x96-0.npz"}
    graphs = {"graphs/fp16/sam-64x64.onnx", "graphs/fp16/sam-64x96.onnx", "graphs/fp16/sam.bin"}
    assert packed(bundle, precision="fp16") == graphs | references | TEXT


def test_one_canvas_without_the_text_encoder(bundle):
    expected = {"graphs/fp16/sam-64x64.onnx", "graphs/fp16/sam.bin", "reference/64x64-0.npz"}
    assert packed(bundle, precision="fp16", canvases=((64, 64),), text=False) == expected


def test_engines_take_the_place_of_their_graphs(bundle):
    files = packed(bundle, precision="fp16", backend="tensorrt_rtx", device=RTX, text=False)
    references = {"reference/64x64-0.npz", "reference/64x96-0.npz"}
    assert files == {f"engines/tensorrt_rtx-{RTX}/fp16/sam-{hw}.engine" for hw in ("64x64", "64x96")} | references
    copy = Bundle.open(bundle.path.with_name("b.bundle"))
    assert copy.graph("sam", "fp16", (64, 64)) == bundle.graph("sam", "fp16", (64, 64))
    assert copy.manifest.engines[0].gate == Gate(True, 0.9995, 0.998)
    with pytest.raises(BundleError, match="only its engines were packed"):
        copy.graph_files(copy.graph("sam", "fp16", (64, 64)))


def test_a_graph_stays_while_one_of_the_devices_has_no_engine_of_it(bundle):
    files = packed(bundle, precision="fp16", backend="tensorrt_rtx")
    assert "graphs/fp16/sam-64x96.onnx" in files
    assert "graphs/fp16/sam-64x64.onnx" not in files


def test_the_precision_may_be_left_out_only_if_there_is_one(bundle):
    with pytest.raises(BundleError, match="it holds fp32, fp16; say --precision"):
        packed(bundle)
    pack(bundle, bundle.path.with_name("c.bundle"), PackChoice("fp16", text=False))
    assert Bundle.open(bundle.path.with_name("c.bundle")).precisions() == ("fp16",)
    assert packed(Bundle.open(bundle.path.with_name("c.bundle")))


@pytest.mark.parametrize(
    ("choice", "found"),
    [
        ({"precision": "int8"}, "sam is there in fp32, fp16 only; run `edgeseg quantize --precision int8`"),
        ({"precision": "fp16", "canvases": ((32, 32),)}, "holds 64x64, 64x96"),
        ({"precision": "fp16", "backend": "tensorrt"}, "run `edgeseg build --backend tensorrt`"),
        ({"precision": "fp32", "backend": "tensorrt_rtx"}, "tensorrt_rtx sm89-rtx1.7.1 fp16"),
        ({"precision": "fp16", "backend": "tensorrt_rtx", "device": "sm87"}, "for sm87"),
    ],
)
def test_what_the_bundle_lacks_is_refused_with_what_it_holds(bundle, choice, found):
    with pytest.raises(BundleError) as caught:
        packed(bundle, **choice)
    assert found in str(caught.value)
    assert sorted(os.listdir(bundle.path.parent)) == ["a.bundle"]


def test_damage_is_not_copied(bundle):
    (bundle.path / "graphs/fp16/sam.bin").write_text("x" * 20)
    with pytest.raises(BundleError, match=r"graphs/fp16/sam\.bin"):
        packed(bundle, precision="fp16")
    assert os.listdir(bundle.path.parent) == ["a.bundle"]


def test_a_device_without_a_backend_would_choose_nothing(bundle):
    with pytest.raises(InputError, match="give --backend too"):
        packed(bundle, precision="fp16", device=RTX)


def test_a_bundle_is_not_packed_onto_itself(bundle):
    before = tree(bundle.path)
    with pytest.raises(InputError, match="onto itself"):
        pack(bundle, bundle.path, PackChoice("fp16"), overwrite=True)
    assert tree(bundle.path) == before


def test_too_little_room_is_told_before_the_first_byte(bundle, monkeypatch):
    rewrite(bundle.path, lambda value: value["files"]["tokenizer.json"].update(bytes=1 << 60))
    with pytest.raises(StorageError, match="are needed, and"):
        pack(Bundle.open(bundle.path), bundle.path.with_name("b.bundle"), PackChoice("fp16"))


def test_progress_ends_at_the_total(bundle):
    calls = []
    out = bundle.path.with_name("b.bundle")
    made = pack(bundle, out, PackChoice("fp16"), progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (made.size_bytes, made.size_bytes)


def test_pack_on_the_command_line(bundle, capsys):
    out = bundle.path.with_name("b.bundle")
    words = ["pack", str(bundle.path), "--precision", "fp16", "--canvas", "64x64", "--no-text", "-o", str(out)]
    assert main(words) == 0
    assert capsys.readouterr().out == f"{out}: {Bundle.open(out).size_bytes} B of 1.0 KiB\n"
    assert main(words) == BundleError.exit_code
    assert "say --overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["canvases"] == ["64x64"]
    assert main(["pack", str(bundle.path), "--canvas", "64", "-o", str(out)]) == 2


def test_inspect_as_json(bundle, capsys):
    assert main(["inspect", str(bundle.path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["command"] == "inspect"
    assert found["size_bytes"] == bundle.size_bytes
    assert found["graphs"][0]["inputs"] == [{"name": "image_sam", "dtype": "float32", "shape": [1, 3, 64, 64]}]
    assert [(item["gate"], item["outdated"]) for item in found["engines"]] == [
        ("passed", False),
        ("passed", False),
        ("ungated", True),
    ]


def test_inspect_shows_every_graph_and_engine(bundle, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["inspect", str(bundle.path)]) == 0
    text = capsys.readouterr().out
    for word in ("ebseg-b", "Apache-2.0", "64x64 64x96", "image_sam 1x3x64x64", "passed, cosine 0.99950", "ungated"):
        assert word in text


def test_names_in_a_bundle_do_not_steer_the_terminal(bundle, capsys):
    rewrite(bundle.path, lambda value: value.update(name="\x1b[2J[red]x\u202e"))
    assert main(["inspect", str(bundle.path)]) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[red]x" in text


def failed(bundle, **changes):
    """The bundle, whose engines of `RTX` failed their gate."""
    with bundle.edit() as edit:
        for spec in edit.manifest.engines:
            if spec.device == RTX:
                edit.add_engine(replace(spec, gate=Gate(False, 0.5), **changes))


def test_an_engine_that_failed_is_not_packed(bundle):
    failed(bundle)
    with pytest.raises(BundleError, match=r"sm89-rtx1\.7\.1 fp16 that failed its gate"):
        packed(bundle, precision="fp16", backend="tensorrt_rtx", device=RTX)


def test_the_report_of_an_engine_goes_with_it_and_a_selection_stays(bundle):
    with bundle.edit() as edit:
        edit.stage("reports/repair.json").write_text("{}")
        for spec in edit.manifest.engines:
            edit.add_engine(replace(spec, report="reports/repair.json"))
        chosen = Selection("tensorrt_rtx", RTX, {"sam": "fp16"}, CANVASES, Gate(True, 1.0), {}, "reports/repair.json")
        edit.update(selections=(chosen,))
    assert "reports/repair.json" in packed(bundle, precision="fp16", backend="tensorrt_rtx", text=False)
    assert Bundle.open(bundle.path.with_name("b.bundle")).manifest.selections == ()


def test_inspect_shows_what_was_obtained_and_selected(bundle, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    with bundle.edit() as edit:
        edit.stage("reports/auto.json").write_text("{}")
        spec = edit.manifest.engines[0]
        edit.add_engine(replace(spec, layers={"gemm": {"int8": 72, "fp16": 24}}, report="reports/auto.json"))
        chosen = Selection(
            "tensorrt_rtx", RTX, {"sam": "fp16"}, CANVASES, Gate(True, 0.9, 0.98), {}, "reports/auto.json"
        )
        edit.update(selections=(chosen,))
    assert main(["inspect", str(bundle.path)]) == 0
    shown = capsys.readouterr().out
    for words in ("72 gemm int8", "see reports/auto.json", "sam fp16", "cosine 0.90000, labels 98.00%"):
        assert words in shown
