"""USE without training: CLIP's patches against CLIP itself, and the bundle of CLIP and SAM from photo to label map."""

import hashlib
import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import edgeseg
from edgeseg.cli import main
from edgeseg.errors import BundleError, CheckpointError, InputError
from edgeseg.export import clip_file, use
from edgeseg.export.bundle import Checkpoint, export_bundle
from edgeseg.export.inputs import opened
from edgeseg.segments.finder import Wish
from edgeseg.segments.runs import encode_all
from tests.export.small_sam import RECIPE, authors, load
from tests.export.small_use import SIDE, clip, recipe
from tests.reference.sam_masks import photo

pytestmark = [pytest.mark.torch, pytest.mark.onnx]


def surgery(model, image, first):
    """Patches of CLIP Surgery, written out block by block on open_clip's own weights."""
    visual = model.visual
    x = visual.conv1(image).flatten(2).transpose(1, 2)
    token = visual.class_embedding.expand(1, 1, -1)
    x = visual.ln_pre(torch.cat((token, x), dim=1) + visual.positional_embedding)
    other = x
    for i, block in enumerate(visual.transformer.resblocks):
        y = block.ln_1(x)
        v = F.linear(y, *(part.chunk(3)[2] for part in (block.attn.in_proj_weight, block.attn.in_proj_bias)))
        x = block(x)
        if i < first:
            other = x
        else:
            shares = (v @ v.transpose(1, 2) / v.shape[-1] ** 0.5).softmax(dim=-1)  # one head
            other = other + block.attn.out_proj(shares @ v)
    return F.normalize(visual.ln_post(other[:, 1:]) @ visual.proj, dim=-1)


def test_patches_are_those_of_clips_surgery(tmp_path):
    theirs = clip()
    model = use.load_clip(tmp_path / "a.pth", dict(theirs.state_dict()), recipe())
    image = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.encoder(image), surgery(theirs, image, 2), rtol=1e-4, atol=1e-5)


def test_texts_are_open_clips(tmp_path):
    theirs = clip()
    model = use.load_clip(tmp_path / "a.pth", dict(theirs.state_dict()), recipe())
    tokens = torch.zeros(2, 77, dtype=torch.int32)
    tokens[0, :4] = torch.tensor([49406, 320, 1929, 49407])
    tokens[1, :3] = torch.tensor([49406, 2368, 49407])
    expected = F.normalize(theirs.encode_text(tokens.long()), dim=-1)
    found = model.text(tokens, torch.tensor([3, 2], dtype=torch.int32))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert model.scale == pytest.approx(np.exp(3.0))


def test_damaged_clip_is_refused(tmp_path):
    state = dict(clip().state_dict())
    assert clip_file.is_clip(state)
    del state["visual.ln_post.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing: ln_post\.bias"):
        use.load_clip(tmp_path / "a.pth", state, recipe())
    del state["visual.positional_embedding"]
    with pytest.raises(CheckpointError, match="missing or odd"):
        use.load_clip(tmp_path / "a.pth", state, recipe())


def test_without_sam_it_says_what_to_fetch(tmp_path):
    torch.save(clip().state_dict(), tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"fetch one, such as mobile_sam\.pt .* --sam mobile_sam\.pt"):
        export_bundle(Checkpoint(tmp_path / "a.pth"), [], tmp_path / "a.bundle")
    with pytest.raises(CheckpointError, match="not those of a SAM"):
        export_bundle(Checkpoint(tmp_path / "a.pth", sam=tmp_path / "a.pth"), [], tmp_path / "a.bundle")


def test_clip_and_sam_come_from_two_files(tmp_path, monkeypatch):
    theirs = clip().state_dict()
    torch.save(theirs, tmp_path / "a.pth")
    alone = load(tmp_path, authors())
    both = opened(Checkpoint(tmp_path / "a.pth", sam=tmp_path / "small.pth"))
    with pytest.raises(CheckpointError, match="no preset has a SAM of width 64; give a file of mobile-sam"):
        use.load(tmp_path / "a.pth", both, recipe())
    monkeypatch.setattr(use, "preset", lambda _: RECIPE)
    model = use.load(tmp_path / "a.pth", both, recipe())
    assert model.prompting is RECIPE
    found = model.masks.state_dict()
    assert all(torch.equal(found[name], value) for name, value in alone.state_dict().items())
    assert torch.equal(model.clip.text.token_embedding.weight, theirs["token_embedding.weight"])


def test_a_bundle_says_where_its_sam_comes_from_and_keeps_no_boxes(small_use):
    digest = hashlib.sha256((small_use.path.parent / "small.pth").read_bytes()).hexdigest()
    assert small_use.manifest.source.licence.endswith(f"; small.pth: sha256 {digest}")
    stored = small_use.reference("256x256")[0]
    assert "tensor:prompt_masks" in stored
    assert "tensor:prompt_boxes" not in stored


def test_bundle_passes_its_reference_on_onnxruntime(small_use, capsys):
    assert main(["verify", str(small_use.path), "--backend", "onnxruntime", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["command"] == "verify"


def test_a_photo_becomes_a_label_map(small_use):
    with edgeseg.open(small_use.path, "onnxruntime", threads=1) as segmenter:
        result = segmenter(photo("china"), ["roof", "tree", "sky"])
        segments = segmenter.segments(photo("china"))
    assert result.labels.shape == (427, 640)
    assert result.none_pixels == 0  # the photo as one segment fills what no segment covers
    assert segments.embeddings is not None
    assert len(segments) > 0
    assert segments.embeddings.shape == (len(segments), 48)


def test_labels_are_those_of_the_segments_by_themselves(small_use):
    with edgeseg.open(small_use.path, "onnxruntime", threads=1) as segmenter:
        words = segmenter.vocabulary(["roof", "tree", "sky", "lake"])
        result, segments = segmenter(photo("china"), words), segmenter.segments(photo("china"))
    scale = small_use.manifest.recipe["logit_scale"]
    logits = scale * segments.embeddings @ words.embeddings.T
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    arrays = result.masks.arrays()
    np.testing.assert_allclose(arrays["class_probs"], shares, atol=1e-4)
    assert np.array_equal(arrays["counts"], segments.runs.counts)
    covered = np.any([segments.runs.mask(i) for i in range(len(segments))], axis=0)
    total = sum(segments.runs.mask(i)[..., None] * shares[i] for i in range(len(segments)))
    assert (total.argmax(axis=2) == result.labels)[covered].mean() > 0.999
    assert (result.labels[~covered] == arrays["whole_probs"].argmax()).all()


def test_settings_are_the_options_of_the_masks(small_use):
    with edgeseg.open(small_use.path, "onnxruntime", threads=1) as segmenter:
        words = segmenter.vocabulary(["roof", "tree"])
        result = segmenter(photo("china"), words, settings={"points_per_side": "4", "pred_iou_threshold": "0.1"})
        options = {"points_per_side": 4, "pred_iou_threshold": 0.1}
        segments = segmenter.segments(photo("china"), Wish(options=options))
        for name, text in (("points_per_side", "4.5"), ("pred_iou_threshold", "nan")):
            with pytest.raises(InputError, match=f"set {name} to '{text}': it is no (whole )?number"):
                segmenter(photo("china"), words, settings={name: text})
        with pytest.raises(InputError, match="use the option rounds"):
            segmenter(photo("china"), words, settings={"rounds": "2"})
    assert np.array_equal(result.masks.arrays()["counts"], segments.runs.counts)


def test_given_masks_are_embedded(small_use):
    masks = np.zeros((4, 427, 640), bool)
    masks[0] = True
    masks[1, 100:200, 100:300] = masks[2, 150:160, 290:310] = True  # masks[3] is empty
    with edgeseg.open(small_use.path, "onnxruntime", threads=1) as segmenter:
        found = segmenter.segments(photo("china"), Wish(encode_all(masks, (427, 640))))
        with pytest.raises(InputError, match="the photo is 427x640"):
            segmenter.segments(photo("china"), Wish(encode_all(masks[:, :9], (9, 640))))
    assert found.embeddings is not None
    lengths = np.linalg.norm(found.embeddings, axis=1)
    np.testing.assert_allclose(lengths, [1, 1, 1, 0], atol=1e-5)


def test_segments_are_written_queried_and_drawn(small_use, tmp_path, capsys):
    from PIL import Image

    Image.fromarray(photo("china")).save(tmp_path / "china.png")
    words = ["segments", str(small_use.path), str(tmp_path / "china.png"), "-o", str(tmp_path / "a.npz"), "--json"]
    assert main([*words, "--points-per-side", "4", "--overlay", str(tmp_path / "a.png")]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["embedding"] == 48
    assert body["segments"]
    assert (tmp_path / "a.png").stat().st_size > 1000
    asked = ["query", str(tmp_path / "a.npz"), "a red cup", "--top", "2", "--overlay", str(tmp_path / "out"), "--json"]
    assert main(asked) == 0
    matches = json.loads(capsys.readouterr().out)["matches"]
    assert len(matches) == min(2, len(body["segments"]))
    assert [one["score"] for one in matches] == sorted((one["score"] for one in matches), reverse=True)
    assert (tmp_path / "out/a.png").stat().st_size > 1000


def test_a_query_needs_a_file_and_its_bundle(tmp_path, capsys):
    assert main(["query", "a red cup"]) == 3
    assert "no file of segments is named" in capsys.readouterr().err


def test_a_bundle_without_sam_has_no_segments(tmp_path):
    from edgeseg.chain import Chain
    from edgeseg.segments.sam import SamRunner
    from tests.edgeseg.small_bundle import manifest

    with pytest.raises(BundleError, match="the bundle has no SAM"):
        SamRunner(Chain([]), manifest())


def labelled(folder):
    """A photo whose left half is one class and whose right half another."""
    from PIL import Image

    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    rgb = photo("china")[:96, :128]
    Image.fromarray(rgb).save(folder / "images/a.png")
    Image.fromarray(np.repeat(np.array([0, 1], np.uint8), 64)[None].repeat(96, axis=0)).save(folder / "labels/a.png")
    (folder / "classes.txt").write_text("roof\nsky")
    return folder


def test_mask_recall_stands_beside_the_scores(small_use, tmp_path, capsys):
    words = ["bench", "accuracy", str(small_use.path), "--dataset", "folder", "--root", str(labelled(tmp_path / "set"))]
    words += ["--backend", "onnxruntime", "--threads", "1"]
    assert main([*words, "--mask-recall", "2,4", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert "miou_percent" in body["scores"]["detectron2"]
    assert body["mask_recall"]["segments"] == "connected components of one class, of at least 100 pixels"
    assert [row["points_per_side"] for row in body["mask_recall"]["grids"]] == [2, 4]
    assert all(row["segments"] == 2 and row["masks"] > 0 for row in body["mask_recall"]["grids"])
    assert main([*words, "--mask-recall", "2", "--against", "precision=fp32"]) == InputError.exit_code
    assert "leave one of the two out" in capsys.readouterr().err


def test_sam_by_itself_has_mask_recall_and_no_scores(small_sam, tmp_path, capsys):
    words = ["bench", "accuracy", str(small_sam.path), "--dataset", "folder", "--root", str(labelled(tmp_path / "set"))]
    words += ["--backend", "onnxruntime", "--threads", "1"]
    assert main([*words, "--mask-recall", "2"]) == 0
    said = capsys.readouterr().out
    assert "mask recall, IoU 0.5 to 0.95, grid 2x2: " in said
    assert "mIoU" not in said
    assert main(words) == BundleError.exit_code
    assert "a bundle of the family 'sam' knows no classes" in capsys.readouterr().err
