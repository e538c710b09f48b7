"""A whole bundle whose text encoder is not part of the checkpoint."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from edgeseg.cli import main
from edgeseg.errors import CheckpointError, InputError
from edgeseg.export import bundle as bundle_module
from edgeseg.export import text_encoders
from edgeseg.export.bundle import Checkpoint, export_bundle
from edgeseg.export.recipe import parse
from edgeseg.schema import Source
from edgeseg.vocabulary import VocabularyMaker
from edgeseg.vocabulary.cache import EmbeddingCache
from edgeseg.vocabulary.wordpiece import WordPieceTokenizer
from tests.export.small import EMBEDDING, small_config, small_state
from tests.minilm import real_folder, write_small

pytestmark = [pytest.mark.torch, pytest.mark.onnx]

RECIPE = """
family = "ebseg"
name = "small"
licence = "test"
canvases = ["64x64"]
clip_width = 64
clip_patch = 16
options = { clip_scale = 0.5, decoder_heads = 8, ensemble = { alpha = 0.09, beta = 0.3, gamma = 0.7 } }
resize = { mode = "none" }
text_encoder = "minilm"
templates = "vild"
training_classes = "coco-stuff-171"
gate = { fp32 = { cosine = 0.999, agreement = 0.99 } }
"""


@pytest.fixture
def recipe(monkeypatch):
    """Every checkpoint has a recipe whose text encoder is MiniLM."""
    made = parse(RECIPE, "small")
    monkeypatch.setattr(bundle_module, "choose_recipe", lambda *_: made)
    return made


def checkpoint(folder, **sizes):
    """A small EBSeg without a text tower, unless `text` is given."""
    path = folder / "small.pth"
    torch.save({"model": small_state(small_config(**({"text": False} | sizes)))}, path)
    return Checkpoint(path)


def test_embeddings_of_another_width_are_refused_and_nothing_is_left(tmp_path, recipe):
    folder = write_small(tmp_path / "own")
    given = replace(checkpoint(tmp_path, embedding=96), text_encoder=folder)
    with pytest.raises(CheckpointError) as caught:
        export_bundle(given, [(64, 64)], tmp_path / "b")
    assert caught.value.found == "its CLIP makes embeddings of 96 values, its text encoder, minilm, 128"
    assert "trained with minilm" in caught.value.todo
    assert not (tmp_path / "b").exists()


def test_a_checkpoint_with_clips_own_tower_is_refused(tmp_path, recipe):
    given = replace(checkpoint(tmp_path, text=True), text_encoder=write_small(tmp_path / "own"))
    with pytest.raises(CheckpointError, match="it holds a text encoder of CLIP's kind"):
        export_bundle(given, [(64, 64)], tmp_path / "b")


@pytest.mark.slow
def test_the_command_takes_a_text_encoder(tmp_path, recipe, capsys):
    path = checkpoint(tmp_path, embedding=EMBEDDING).path
    words = ["export", str(path), "-o", str(tmp_path / "b"), "--json"]
    assert main([*words, "--text-encoder", str(tmp_path / "nowhere")]) == CheckpointError.exit_code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert not (tmp_path / "b").exists()
    folder = write_small(tmp_path / "own")
    assert main([*words, "--text-encoder", str(folder)]) == 0
    licence = json.loads(capsys.readouterr().out)["source"]["licence"]
    assert licence == "test; text encoder: unknown"


def opened(bundle):
    from edgeseg.backends import get_backend

    return lambda spec, path: get_backend("onnxruntime", 1).open(path, spec)


@pytest.mark.slow
def test_other_text_weights_make_other_vocabularies(tmp_path, recipe):
    """The vocabulary file of one is refused by the other, and the cache keeps them apart."""
    given, names, cache = checkpoint(tmp_path), ["cat", "tabby"], EmbeddingCache(tmp_path / "cache")
    made = []
    for seed in (0, 1):
        own = replace(given, text_encoder=write_small(tmp_path / f"own{seed}", seed))
        bundle = export_bundle(own, [(64, 64)], tmp_path / f"{seed}.bundle")
        maker = VocabularyMaker(bundle, opened(bundle), cache)
        made.append((maker, maker.vocabulary(names)))
    assert np.abs(made[0][1].embeddings - made[1][1].embeddings).max() > 0.01
    made[0][0].check(made[0][1])
    with pytest.raises(InputError, match="another text encoder"):
        made[0][0].check(made[1][1])


@pytest.fixture(scope="module")
def real_bundle(tmp_path_factory):
    """A small EBSeg whose embeddings are as wide as the real sentence encoder's, and the bundle's path."""
    real_folder()
    folder = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle_module, "choose_recipe", lambda *_: parse(RECIPE, "small"))
        return export_bundle(checkpoint(folder, embedding=384), [(64, 64)], folder / "small.bundle")


@pytest.mark.slow
def test_a_bundle_with_the_real_encoder_makes_the_embeddings_of_torch(real_bundle):
    names = ["cat", "wooden table", "Fußgänger, bicyclist", "x" * 101]
    made = VocabularyMaker(real_bundle, opened(real_bundle), EmbeddingCache(None)).vocabulary(names)
    tokenizer = WordPieceTokenizer.open(real_bundle.file("tokenizer.json"))
    network = text_encoders.load_minilm(real_folder() / "model.safetensors")
    templates = real_bundle.manifest.recipe["templates"]
    assert len(templates) == 14
    for name, row in zip(names, made.embeddings, strict=True):
        rows = [tokenizer.tokenize(template.replace("{}", name)) for template in templates]
        alone = [network(torch.tensor([ids]), torch.tensor([len(ids)]))[0] for ids in rows]
        mean = torch.stack(alone).mean(0)
        np.testing.assert_allclose(row, (mean / mean.norm()).numpy(), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_bundle_says_where_its_text_encoder_came_from(real_bundle):
    manifest = real_bundle.manifest
    assert manifest.source.licence == f"test; text encoder: {text_encoders.LICENCE}"
    assert manifest.recipe["text_source"] == vars(
        Source("model.safetensors", text_encoders.SHA256["model.safetensors"], None, text_encoders.LICENCE)
    )
    assert (manifest.recipe["text_encoder"], manifest.recipe["text_context"]) == ("minilm", 256)
    real_bundle.verify()


@pytest.mark.slow
def test_verify_accepts_the_bundle_with_its_text_encoder(real_bundle, capsys):
    assert main(["verify", str(real_bundle.path), "--backend", "onnxruntime", "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)["tensors"]
    assert min(check["cosine"] for check in checks if check["tensor"] == "text_embedding") > 0.999999


@pytest.mark.slow
def test_a_name_longer_than_the_trained_context_is_refused(real_bundle):
    maker = VocabularyMaker(real_bundle, opened(real_bundle), EmbeddingCache(None))
    with pytest.raises(InputError, match=r"has \d+ tokens, and the text encoder takes 256"):
        maker.vocabulary(["very " * 256 + "cat"])
