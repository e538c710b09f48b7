import dataclasses

import numpy as np
import pytest

from edgeseg.errors import BundleError, InputError
from edgeseg.schema import EngineSpec
from edgeseg.vocabulary.cache import EmbeddingCache
from edgeseg.vocabulary.classes import dataset_classes
from edgeseg.vocabulary.maker import VocabularyMaker
from edgeseg.vocabulary.recipe import TextRecipe
from edgeseg.vocabulary.vocabulary import Vocabulary
from tests.edgeseg.vocabulary.tiny import TEMPLATES

pytestmark = pytest.mark.onnx


def test_a_class_is_the_unit_mean_of_its_unit_prompts(maker, bundle, tokenizer):
    made = maker.vocabulary(["cat", "wooden table"])
    session = bundle.open_session(bundle.manifest.graphs[0], bundle.file("text.onnx"))
    for name, row in zip(made.names, made.embeddings, strict=True):
        rows = [tokenizer.tokenize(template.replace("{}", name)) for template in TEMPLATES]
        mean = session.run(tokenizer.inputs(rows))["text_embedding"].mean(axis=0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-6)


def test_training_classes_follow_the_rule_and_the_override(maker):
    assert maker.vocabulary("cat, tabby, dog").overlap.tolist() == [1, 0, 1]
    assert maker.vocabulary("cat, tabby, dog", {"tabby": True, "dog": False}).overlap.tolist() == [1, 1, 0]


def test_a_dataset_keeps_its_own_synonyms(maker):
    aeroplanes = dataclasses.replace(dataset_classes("voc-20"), synonyms=(("cats",),) * 20)
    assert maker.vocabulary(aeroplanes).overlap.sum() == 20


def test_adding_one_class_encodes_one_class(maker, bundle):
    maker.vocabulary(["cat", "dog"])
    before = sum(shape[0] for shape in bundle.runs)
    made = maker.vocabulary(["dog", "cow", "cat"])
    assert sum(shape[0] for shape in bundle.runs) - before == len(TEMPLATES)
    fresh = VocabularyMaker(bundle, bundle.open_session, EmbeddingCache(None)).vocabulary(["dog", "cow", "cat"])
    np.testing.assert_allclose(made.embeddings, fresh.embeddings, atol=1e-6)


def test_known_classes_open_no_session_and_an_opened_one_is_closed(maker, bundle):
    maker.vocabulary(["cat"])
    maker.vocabulary(["cat"])
    assert [session.closed for session in bundle.sessions] == [True]


def test_other_weights_or_templates_are_encoded_anew(maker, bundle, cache):
    maker.vocabulary(["cat"])
    bundle.manifest.recipe["templates"] = ["a {}"]
    VocabularyMaker(bundle, bundle.open_session, cache).vocabulary(["cat"])
    digests = bundle.manifest.files
    digests["text.onnx"] = dataclasses.replace(digests["text.onnx"], sha256="d" * 64)
    VocabularyMaker(bundle, bundle.open_session, cache).vocabulary(["cat"])
    assert len(bundle.sessions) == 3


def test_progress_goes_from_none_to_all_of_the_missing_names(maker):
    maker.vocabulary(["cat"])
    seen = []
    maker.vocabulary([f"class {i}" for i in range(70)] + ["cat"], progress=lambda *counts: seen.append(counts))
    assert seen == [(0, 70), (64, 70), (70, 70)]


def test_an_interrupt_keeps_what_was_encoded_and_closes_the_session(maker, bundle):
    def interrupt(done, total):
        if done:
            raise KeyboardInterrupt

    names = [f"class {i}" for i in range(70)]
    with pytest.raises(KeyboardInterrupt):
        maker.vocabulary(names, progress=interrupt)
    assert bundle.sessions[0].closed
    seen = []
    maker.vocabulary(names, progress=lambda *counts: seen.append(counts))
    assert seen[0] == (0, 6)


def test_an_over_long_name_is_refused_by_name_and_count_before_a_session_is_opened(maker, bundle):
    with pytest.raises(InputError) as caught:
        maker.vocabulary(["cat", "abcdefghijklmnopqrstuvwxyz"])
    assert "'abcdefghijklmnopqrstuvwxyz'" in caught.value.asked
    assert "46 tokens, and the text encoder takes 40" in caught.value.found
    assert bundle.sessions == []


def test_more_classes_than_the_score_graph_takes_are_refused(maker):
    with pytest.raises(InputError, match="takes 1 to 200 classes"):
        maker.vocabulary([f"class {i}" for i in range(201)])


def test_braces_in_a_name_are_ordinary_text(maker):
    assert maker.vocabulary(["{} {0}"]).names == ("{} {0}",)


def test_a_loaded_vocabulary_is_checked_against_the_bundle(maker):
    made = maker.vocabulary("cat, dog")
    assert maker.check(made) is made
    assert maker.check(dataclasses.replace(made, encoder="")).names == made.names
    with pytest.raises(InputError, match="another text encoder"):
        maker.check(dataclasses.replace(made, encoder="0" * 64))
    with pytest.raises(InputError, match="4 values, not 8"):
        maker.check(Vocabulary(("a",), np.full((1, 4), 0.5, np.float32), np.zeros(1, np.float32)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("templates", []),
        ("templates", ["no place"]),
        ("templates", "a {}"),
        ("templates", ["{} {}"]),
        ("text_encoder", None),
        ("text_context", "77"),
        ("text_context", True),
        ("embedding", 0),
        ("training_classes", [1]),
        ("text_source", "MiniLM"),
        ("text_source", {}),
        ("text_source", {"sha256": "A" * 64}),
    ],
)
def test_a_recipe_without_usable_fields_is_refused(bundle, key, value):
    with pytest.raises(BundleError, match=key):
        TextRecipe.read(bundle.manifest.recipe | {key: value})


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda m: dataclasses.replace(m, graphs=()), "no text encoder"),
        (lambda m: dataclasses.replace(m, files={}), "no text encoder"),
        (lambda m: dataclasses.replace(m, files={"text.onnx": m.files["text.onnx"]}), r"does not list tokenizer\.json"),
        (lambda m: dataclasses.replace(m, recipe=m.recipe | {"text_encoder": "runes"}), "knows clip"),
        (lambda m: dataclasses.replace(m, recipe=m.recipe | {"embedding": 9}), "gives 8 values, not 9"),
    ],
)
def test_a_bundle_that_cannot_encode_says_why(bundle, cache, change, found):
    bundle.manifest = change(bundle.manifest)
    with pytest.raises(BundleError, match=found):
        VocabularyMaker(bundle, bundle.open_session, cache).vocabulary(["cat"])


def test_a_packed_bundle_without_the_graph_file_opens_its_engine(bundle, cache):
    graph, opened = bundle.manifest.graphs[0], []
    engine = EngineSpec("fake", "fake", "text", "fp32", None, "text.bin", (), "a" * 64)
    files = {"tokenizer.json": bundle.manifest.files["tokenizer.json"]}
    bundle.manifest = dataclasses.replace(bundle.manifest, files=files, engines=(engine,))

    def open_engine(spec, path):
        opened.append(path.name)
        return bundle.open_session(spec, bundle.folder / "text.onnx")

    assert VocabularyMaker(bundle, open_engine, cache).vocabulary(["cat"]).names == ("cat",)
    assert opened == [graph.file]


def test_a_template_may_hold_other_braces(bundle):
    recipe = TextRecipe.read(bundle.manifest.recipe | {"templates": ["{a} {}"]})
    assert recipe.prompts("{}") == ["{a} {}"]


def test_the_text_graph_of_the_highest_precision_is_used(bundle, cache):
    graph = bundle.manifest.graphs[0]
    half = dataclasses.replace(graph, precision="fp16", file="none.onnx")
    files = bundle.manifest.files | {"none.onnx": bundle.manifest.files["text.onnx"]}
    bundle.manifest = dataclasses.replace(bundle.manifest, graphs=(half, graph), files=files)
    assert VocabularyMaker(bundle, bundle.open_session, cache).vocabulary(["cat"]).names == ("cat",)
