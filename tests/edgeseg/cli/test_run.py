import json

import numpy as np
import pytest
from PIL import Image

from edgeseg.cli import main
from edgeseg.cli.run import find_images
from edgeseg.errors import InputError

pytestmark = pytest.mark.onnx


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.jpg", "b.png", "c.PNG"):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3)).astype(np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def run(bundle, *words, output):
    return main(["run", str(bundle.path), *map(str, words), "--classes", "cat, wooden table", "-o", str(output)])


def test_folder_is_segmented_into_files(tiny, photos, tmp_path, capsys):
    assert run(tiny, photos, output=tmp_path / "out") == 0
    wanted = {f"{stem}.{kind}" for stem in "abc" for kind in ("labels.png", "overlay.png", "json")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == wanted
    assert "3 of 3 images" in capsys.readouterr().out


def test_bad_image_is_reported_and_the_others_are_done(tiny, photos, tmp_path, capsys):
    (photos / "b.png").write_bytes(b"hello")
    assert run(tiny, photos, output=tmp_path / "out") == InputError.exit_code
    out, err = capsys.readouterr()
    assert err.count("edgeseg: ") == 1
    assert "b.png" in err
    assert "2 of 3 images" in out
    assert (tmp_path / "out" / "c.json").exists()


def test_json_is_one_envelope(tiny, photos, tmp_path, capsys):
    (photos / "b.png").write_bytes(b"hello")
    assert run(tiny, photos, "--json", "--no-overlay", "--scores", output=tmp_path / "out") == 3
    body = json.loads(capsys.readouterr().out)
    assert (body["schema"], body["command"], body["backend"], body["precision"]) == (1, "run", "onnxruntime", "fp32")
    assert [len(item["files"]) for item in body["images"]] == [3, 3]
    assert sum(item["area_pixels"] for item in body["images"][0]["classes"]) == 2400
    assert body["failed"][0]["image"].endswith("b.png")
    assert (tmp_path / "out" / "a.npz").exists()
    assert not (tmp_path / "out" / "a.overlay.png").exists()


def test_threshold_and_image_options_reach_the_segmenter(tiny, photos, tmp_path, capsys):
    deep = photos / "d.png"
    Image.fromarray(np.full((9, 9), 999, np.uint16)).save(deep)
    assert run(tiny, deep, output=tmp_path) == 3
    assert "--16bit scale" in capsys.readouterr().err
    assert run(tiny, deep, "--16bit", "scale", "--threshold", "99", "--json", output=tmp_path) == 0
    assert json.loads(capsys.readouterr().out)["images"][0]["none_pixels"] == 81


@pytest.mark.parametrize(("words", "resized"), [([], [64, 96]), (["--resize", "none"], [40, 60])])
def test_images_go_in_by_the_recipe_or_as_large_as_they_are(tiny, photos, tmp_path, capsys, words, resized):
    assert run(tiny, photos / "a.jpg", *words, "--json", output=tmp_path) == 0
    (image,) = json.loads(capsys.readouterr().out)["images"]
    assert image["resized"] == resized


def test_two_inputs_of_one_name_do_not_overwrite_each_other(tiny, photos, tmp_path):
    other = tmp_path / "more"
    other.mkdir()
    Image.new("RGB", (30, 30)).save(other / "a.png")
    assert run(tiny, photos / "a.jpg", other / "a.png", output=tmp_path / "out") == 0
    heights = [json.loads((tmp_path / "out" / f"{stem}.json").read_text())["height"] for stem in ("a", "a-2")]
    assert heights == [40, 30]


@pytest.mark.parametrize("words", [["--backend", "tensort"], ["--precision", "fp16"], ["--max-pixels", "0"]])
def test_wrong_option_values_are_one_line(tiny, photos, tmp_path, capsys, words):
    assert run(tiny, photos / "a.jpg", *words, output=tmp_path) in (3, 5)
    assert capsys.readouterr().err.count("\n") == 1


def test_images_are_found_by_file_folder_and_glob_each_once(photos):
    names = [path.name for path in find_images([str(photos / "c.PNG"), str(photos), str(photos / "*.jpg")])]
    assert names == ["c.PNG", "a.jpg", "b.png"]


@pytest.mark.parametrize(("text", "word"), [("{}/*.bmp", "matches no file"), ("{}/empty", "no file in it")])
def test_inputs_that_give_no_image_are_refused(photos, text, word):
    (photos / "empty").mkdir()
    with pytest.raises(InputError, match=word):
        find_images([text.format(photos)])


@pytest.mark.parametrize("text", ["rtsp://camera/1", "https://example.org/a.jpg"])
def test_addresses_keep_their_spelling_in_the_error(text):
    with pytest.raises(InputError, match=text):
        find_images([text])
