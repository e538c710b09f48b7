"""Masks at points and in boxes that a user names, against segment-anything's predictor on the same weights."""

import json

import numpy as np
import pytest
from PIL import Image

import edgeseg
from edgeseg.cli import main
from edgeseg.errors import InputError
from edgeseg.segments.finder import Wish
from edgeseg.segments.prompted import Prompts
from edgeseg.segments.segments import Segments
from tests.export.small_sam import authors
from tests.export.small_use import write_small_use
from tests.reference.sam_masks import photo

pytestmark = [pytest.mark.torch, pytest.mark.onnx]

SEED = 1  # of SAM's stand-in weights: with these the best reading of a point is not the first one
POINTS = np.array([(30.5, 20.0), (120.0, 75.0), (239.0, 159.0)])
BOXES = np.array([(10.0, 20.0, 100.0, 90.0), (60.0, 5.0, 240.0, 150.0)])


@pytest.fixture(scope="module")
def rgb():
    return np.ascontiguousarray(photo("china")[100:260, 200:440])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_small_use(tmp_path_factory.mktemp("use"), SEED)


@pytest.fixture(scope="module")
def found(bundle, rgb):
    with edgeseg.open(bundle.path, "onnxruntime", threads=1) as segmenter:
        return segmenter.segments(rgb, Wish(prompts=Prompts(POINTS, BOXES)))


def expected(rgb):
    """The authors' best reading of each point, and their single mask of each box: masks and estimates."""
    from segment_anything import SamPredictor

    predictor = SamPredictor(authors(SEED))
    predictor.set_image(rgb)
    for point in POINTS:
        masks, scores, _ = predictor.predict(point[None], np.ones(1), multimask_output=True)
        yield masks[scores.argmax()], scores.max(), 1 + int(scores.argmax())
    for box in BOXES:
        masks, scores, _ = predictor.predict(box=box, multimask_output=False)
        yield masks[0], scores[0], 0


def test_each_prompt_gives_the_authors_mask(found, rgb):
    made = list(expected(rgb))
    assert len(found) == len(made)
    assert any(number > 1 for _, _, number in made)
    for index, (mask, score, number) in enumerate(made):
        ours = found.runs.mask(index)
        assert 0 < mask.sum() < mask.size
        assert (ours & mask).sum() >= 0.99 * (ours | mask).sum()
        assert found.iou[index] == pytest.approx(score, abs=1e-3)
        assert found.answer[index] == number


def test_a_prompted_segment_has_its_point_and_an_embedding(found, tmp_path):
    assert np.array_equal(found.points[:3], POINTS.astype(np.float32))
    assert np.isnan(found.points[3:]).all()
    np.testing.assert_allclose(np.linalg.norm(found.embeddings, axis=1), 1, atol=1e-5)
    found.save(tmp_path / "a.npz")
    listed = Segments.load(tmp_path / "a.npz").described()["segments"]
    assert [one["point"] for one in listed] == [*POINTS.tolist(), None, None]
    assert all(one["predicted_iou"] is not None for one in listed)


def test_the_command_asks_what_it_is_told(bundle, rgb, found, tmp_path, capsys):
    Image.fromarray(rgb).save(tmp_path / "a.png")
    words = ["segments", str(bundle.path), str(tmp_path / "a.png"), "-o", str(tmp_path / "a.npz"), "--json"]
    asked = [part for box in BOXES for part in ("--box", ",".join(map(str, box)))]
    asked += [part for point in POINTS for part in ("--point", ",".join(map(str, point)))]
    assert main([*words, *asked]) == 0
    assert json.loads(capsys.readouterr().out)["segments"] == found.described()["segments"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--point", "3"], "it is not 2 numbers"),
        (["--box", "3,4,5,x"], "it is not 4 numbers"),
        (["--point", "240,10"], "is not on a photo of 240 x 160"),
        (["--point", "nan,10"], "is not on a photo of 240 x 160"),
        (["--box", "30,10,20,40"], "holds no pixel"),
        (["--point", "3,4", "--points-per-side", "8"], "use --points-per-side with --point or --box"),
        (["--point", "3,4", "--masks", "a.npz"], "use --masks with --point or --box"),
        (["--masks", "a.npz", "--crop-layers", "1"], "use --crop-layers with --masks"),
    ],
)
def test_what_cannot_be_asked_is_refused(bundle, rgb, tmp_path, capsys, options, message):
    Image.fromarray(rgb).save(tmp_path / "a.png")
    words = ["segments", str(bundle.path), str(tmp_path / "a.png"), "-o", str(tmp_path / "a.npz")]
    assert main([*words, *options]) == 3
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "a.npz").exists()


def test_an_empty_mask_has_no_stability():
    from edgeseg.segments.runs import encode_all

    empty = Segments(
        encode_all(np.zeros((1, 4, 6), bool), (4, 6)),
        iou=np.full(1, 0.5, np.float32),
        stability=np.full(1, np.nan, np.float32),
        points=np.zeros((1, 2), np.float32),
        answer=np.ones(1, np.int8),
    )
    assert empty.described()["segments"][0]["stability"] is None


def test_a_wish_of_nothing_is_no_segment(bundle, rgb):
    with edgeseg.open(bundle.path, "onnxruntime", threads=1) as segmenter:
        assert len(segmenter.segments(rgb, Wish(prompts=Prompts()))) == 0
        with pytest.raises(InputError, match="is not on a photo"):
            segmenter.segments(rgb, Wish(prompts=Prompts(points=np.array([(-1.0, 3.0)]))))
