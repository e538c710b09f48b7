import json

import numpy as np
import pytest

from edgeseg.errors import BundleError
from edgeseg.vocabulary import tokenizer_file as module
from edgeseg.vocabulary.tokenizer import END, START, ClipTokenizer
from tests.edgeseg.vocabulary.tiny import tiny_tokenizer


def test_tokens_are_padded_with_zeros_and_the_end_token_is_pointed_at(tokenizer):
    tokens, eot = tokenizer.encode(["cat", "a dog"])
    assert tokens.dtype == eot.dtype == np.int32
    assert eot.tolist() == [3, 5]
    assert tokens.shape == (2, 6)
    assert tokens[0, 4:].tolist() == [0, 0]
    assert (tokens[0, eot[0]], tokens[1, eot[1]]) == (tokenizer.tokenize("")[1],) * 2


def test_a_merge_is_applied_and_a_word_ends_with_its_mark(tokenizer):
    vocab = tiny_tokenizer()["model"]["vocab"]
    assert tokenizer.tokenize("Cat")[1:-1] == [vocab["ca"], vocab["t</w>"]]


def test_inputs_are_at_least_as_wide_as_asked(tokenizer):
    assert tokenizer.inputs([tokenizer.tokenize("a")], width=7)["tokens"].shape == (1, 7)


@pytest.mark.parametrize("text", [START, END, f"a {END} b", "<start_of_text>", "<end_of_text>"])
def test_a_special_token_spelled_out_is_ordinary_text(tokenizer, text):
    start, end = tokenizer.tokenize("")
    inner = tokenizer.tokenize(text)[1:-1]
    assert start not in inner
    assert end not in inner


def _damaged(change):
    content = tiny_tokenizer()
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "Expecting value"),
        ("[]", "no model"),
        ("[" * 100000, "recursion"),
        (_damaged(lambda c: c["model"].update(vocab=[])), "not a table"),
        (_damaged(lambda c: c["model"]["vocab"].update({END: 2**40})), "gaps"),
        (_damaged(lambda c: c["model"]["vocab"].update({END: True})), "not a table"),
        (_damaged(lambda c: c["model"]["vocab"].update({"x9": c["model"]["vocab"].pop(END)})), "lacks"),
        (_damaged(lambda c: c["model"].update(merges=["x9 y"])), "not in its vocabulary"),
        (_damaged(lambda c: c["model"].update(merges=[["c", "a"]])), "not a list of texts"),
        (_damaged(lambda c: c["model"].update(type="WordLevel")), "steps"),
        (_damaged(lambda c: c["added_tokens"].append({"id": 0, "content": "cat", "special": True})), "steps"),
        (_damaged(lambda c: c.update(normalizer={"type": "Replace", "pattern": "(a+)+b", "content": ""})), "steps"),
    ],
)
def test_any_other_file_is_refused(tmp_path, content, found):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(BundleError) as caught:
        ClipTokenizer.open(path)
    assert found in caught.value.found


def test_a_huge_or_missing_file_is_refused(tmp_path, tokenizer_file, monkeypatch):
    with pytest.raises(BundleError):
        ClipTokenizer.open(tmp_path / "none.json")
    monkeypatch.setattr(module, "FILE_LIMIT_BYTES", 100)
    with pytest.raises(BundleError, match="larger than 100 bytes"):
        ClipTokenizer.open(tokenizer_file)
