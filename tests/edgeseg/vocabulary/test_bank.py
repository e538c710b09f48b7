import json

import numpy as np
import pytest

from edgeseg.errors import InputError
from edgeseg.vocabulary.bank import BANKS, PromptBank
from edgeseg.vocabulary.classes import dataset_classes
from edgeseg.vocabulary.maker import VocabularyMaker
from tests.edgeseg.vocabulary.tiny import DIMENSIONS, TEMPLATES

PHRASES = {"cat": {"colour": ["in grey", "in red"], "shape": ["with ears"]}, "dog": {"shape": ["with a tail"]}}


def write(folder, classes, schema=1):
    path = folder / "bank.json"
    path.write_text(json.dumps({"schema": schema, "classes": classes}))
    return str(path)


@pytest.mark.parametrize("name", BANKS)
def test_a_bank_that_ships_describes_every_class_of_its_data_set_by_each_attribute(name):
    bank = PromptBank.open(name)
    assert bank.classes == dataset_classes(name)
    assert bank.attributes == ("colour", "shape", "texture")
    for class_name in bank.classes.names:
        said = [phrase for group in bank.groups(class_name) for phrase in group]
        assert all(bank.groups(class_name)), class_name
        assert len(set(said)) == len(said), class_name
        assert all(len(phrase.split()) <= 12 and not phrase.endswith(".") for phrase in said), class_name


def test_attributes_are_chosen_by_name(tmp_path):
    bank = PromptBank.open(write(tmp_path, PHRASES))
    assert bank.attributes == ("colour", "shape")
    assert bank.groups("dog") == [(), ("with a tail",)]
    assert bank.only(["shape"]).groups("cat") == [("with ears",)]
    assert bank.digest != bank.only(["shape"]).digest
    with pytest.raises(InputError, match=r"'size'.*colour, shape"):
        bank.only(["size"])
    with pytest.raises(InputError, match="describe 'cow'"):
        bank.groups("cow")


@pytest.mark.parametrize(
    "classes",
    [
        [],
        {"cat": []},
        {"cat": {"colour": "red"}},
        {"cat": {"colour": [""]}},
        {"cat": {"colour": ["a\nb"]}},
        {"": {}},
        {},
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, classes):
    with pytest.raises(InputError, match="read the prompt bank"):
        PromptBank.open(write(tmp_path, classes))


def test_another_schema_and_no_file_are_refused(tmp_path):
    with pytest.raises(InputError, match="schema 1"):
        PromptBank.open(write(tmp_path, PHRASES, schema=2))
    with pytest.raises(InputError, match="or one of ade20k-150"):
        PromptBank.open(str(tmp_path / "none.json"))


@pytest.mark.onnx
def test_a_described_class_is_the_mean_of_plain_and_described_prompts(tmp_path, maker, bundle, tokenizer):
    bank = PromptBank.open(write(tmp_path, PHRASES))
    plain, made = maker.vocabulary(["cat"]), maker.vocabulary(["cat"], bank=bank)
    session = bundle.open_session(bundle.manifest.graphs[0], bundle.file("text.onnx"))
    said = ["cat", "cat in grey", "cat in red", "cat with ears"]
    rows = [tokenizer.tokenize(template.replace("{}", text)) for text in said for template in TEMPLATES]
    mean = session.run(tokenizer.inputs(rows))["text_embedding"].mean(axis=0)
    np.testing.assert_allclose(made.embeddings[0], mean / np.linalg.norm(mean), atol=1e-6)
    assert not np.allclose(plain.embeddings, made.embeddings, atol=1e-3)
    assert np.array_equal(maker.vocabulary(["cat"]).embeddings, plain.embeddings)


@pytest.mark.onnx
def test_channels_hold_the_plain_prompts_and_one_attribute_each(tmp_path, bundle):
    bundle.manifest.recipe.update(prompts=3, embedding=3 * DIMENSIONS)
    maker = VocabularyMaker(bundle, bundle.open_session)
    bank = PromptBank.open(write(tmp_path, {"cat": PHRASES["cat"]}))
    plain, made = (maker.vocabulary(["cat"], bank=b).embeddings.reshape(3, DIMENSIONS) for b in (None, bank))
    np.testing.assert_allclose(plain[0], plain[2], atol=1e-6)
    np.testing.assert_allclose(made[0], plain[0], atol=1e-6)
    assert not np.allclose(made[1], made[2], atol=1e-3)
    with pytest.raises(InputError, match="choose as many with --attributes"):
        maker.vocabulary(["cat"], bank=bank.only(["colour"]))


@pytest.mark.onnx
def test_only_the_first_synonym_is_prompted_where_the_recipe_says_so(bundle):
    bundle.manifest.recipe["names"] = "first"
    made = VocabularyMaker(bundle, bundle.open_session).vocabulary(["cat, feline", "dog"]).embeddings
    del bundle.manifest.recipe["names"]
    plain = VocabularyMaker(bundle, bundle.open_session).vocabulary(["cat", "dog"]).embeddings
    np.testing.assert_allclose(made, plain, atol=1e-6)
