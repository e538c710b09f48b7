"""The verb `edgeseg export`: its exit codes, one line per error, JSON."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from edgeseg.bundle import Bundle
from edgeseg.cli import main
from tests.export.small import write_small

pytestmark = [pytest.mark.torch, pytest.mark.onnx]

CODES = {
    "no such file or preset": (["ebseg-xl"], 3, "there is no such file, and no preset of that name"),
    "a size of the wrong form": (["small-b.pth", "--size", "640"], 2, "is not HEIGHTxWIDTH"),
    "a size that does not fit": (["small-b.pth", "--size", "60x64"], 3, "use --size 64x64"),
    "a family that the tensors do not tell": (["small-b.pth"], 4, "name the nearest preset"),
    "a family that is unknown": (["small-b.pth", "--family", "sed"], 3, "there is no such family"),
    "a reference that is no photo": (["small-b.pth", "--reference", "text.pth"], 3, "no image format"),
    "a text file": (["text.pth"], 4, "cannot read the checkpoint"),
    "a folder": (["old.bundle"], 4, "it is a folder"),
    "an output that is there": (
        ["small-b.pth", "--family", "ebseg-b", "--size", "64x64", "-o", "old.bundle"],
        5,
        "--overwrite",
    ),
    "an output in no folder": (
        ["small-b.pth", "--family", "ebseg-b", "--size", "64x64", "-o", "nowhere/x.bundle"],
        9,
        "there is no folder",
    ),
}


@pytest.mark.parametrize("name", CODES)
def test_a_wrong_command_line_gives_one_line_and_its_exit_code(place, monkeypatch, capsys, name):
    folder, _, unchanged = place
    words, code, expected = CODES[name]
    monkeypatch.chdir(folder)
    (folder / "text.pth").write_text("hello")
    assert main(["export", *words]) == code
    shown = capsys.readouterr()
    assert expected in shown.err
    assert shown.out == ""
    if code != 2:  # click adds its usage
        assert len(shown.err.splitlines()) == 1
    (folder / "text.pth").unlink()
    unchanged()


@pytest.mark.slow
@pytest.mark.parametrize("photos", [1, 3])
def test_reference_inputs_are_the_photos_in_the_middle_of_each_canvas(tmp_path, photos):
    """A landscape and two squares on an upright canvas, whose pixels tell where they were."""
    y, x = np.mgrid[:64, :192].astype(np.uint8)
    wide = np.stack([x, y, x * 0], axis=2)
    made = [wide, wide[:, :64], wide[:, 64:128]][:photos]
    names = [f"{index}.png" for index in range(photos)]
    for name, pixels in zip(names, made, strict=True):
        Image.fromarray(pixels).save(tmp_path / name)
    write_small(tmp_path, text=False)
    words = [word for name in names for word in ("--reference", str(tmp_path / name))]
    words += ["--family", "ebseg-b", "--size", "64x32", "--size", "64x64", "-o", str(tmp_path / "out.bundle")]
    assert main(["export", str(tmp_path / "small-b.pth"), *words]) == 0
    bundle = Bundle.open(tmp_path / "out.bundle")
    upright, square = (bundle.reference(canvas) for canvas in ("64x32", "64x64"))
    assert len(upright) == len(square) == max(2, photos)
    assert (upright[0]["image"] == wide[:, 80:112]).all()
    assert (square[0]["image"] == wide[:, 64:128]).all()
    assert (upright[1]["image"] == (wide[:, 80:112] if photos == 1 else wide[:, 16:48])).all()
    assert (upright[0]["overlap"] != upright[1]["overlap"]).all()


@pytest.mark.slow
def test_the_command_prints_one_json_object_on_stdout(tmp_path):
    write_small(tmp_path, text=False)
    words = ["small-b.pth", "--family", "ebseg-b", "--size", "64x64", "--json"]
    process = subprocess.run(
        [sys.executable, "-m", "edgeseg", "export", *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (process.returncode, process.stderr) == (0, "")
    result = json.loads(process.stdout)
    assert (result["command"], result["bundle"], result["canvases"]) == (
        "export",
        str(tmp_path / "small-b.bundle"),
        ["64x64"],
    )
    assert result["size_bytes"] == Bundle.open(tmp_path / "small-b.bundle").size_bytes > 100_000
    assert result["source"]["checkpoint"] == "small-b.pth"
