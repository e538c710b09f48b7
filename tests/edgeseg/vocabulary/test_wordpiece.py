"""The word-piece tokenizer, on a small vocabulary, and on the published one against the published file itself."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from edgeseg.errors import BundleError, CheckpointError
from edgeseg.export.tokenizer import wordpiece_json
from edgeseg.vocabulary import tokenizer_file
from edgeseg.vocabulary.classes import DATASETS, data_lines, dataset_classes
from edgeseg.vocabulary.wordpiece import END, START, UNKNOWN, WordPieceTokenizer, pipeline
from tests.minilm import SPECIAL, real_folder, small_vocabulary

ODD = [
    "",
    "  \t\n ",
    "Traffic LIGHT",
    "café cafe\u0301 Straße ÅÄÖ İstanbul",
    "ΣΊΣΥΦΟΣ Ёлка",
    "日本語のtext漢字",
    "हिन्दी ไทย 한국어",
    "🚦👩\u200d🚀 x🚀y",
    "don't 'n' R&B a.b,c;d!? #hash {} $5 ^_^ `x`",
    "747 3d x² ½ Ⅳ ٣",
    "ﬁre Ｆｕｌｌ a\u200bb\u00a0c\ufeffd\u2028e\u00ad",
    "nul\x00 bell\x07 \ufffd",
    "a" * 99,
    "a" * 100,
    "a" * 101,
    "unaffable " * 200,
    "pneumonoultramicroscopicsilicovolcanoconiosis",
]


def write(folder, content):
    path = folder / "tokenizer.json"
    path.write_text(content, "utf-8")
    return path


def small_content():
    return pipeline({token: number for number, token in enumerate(small_vocabulary())})


@pytest.fixture
def small(tmp_path):
    return WordPieceTokenizer.open(write(tmp_path, json.dumps(small_content())))


def tokens(tokenizer, text):
    vocabulary = small_vocabulary()
    return [vocabulary[number] for number in tokenizer.tokenize(text)]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        ("cat", ["cat"]),
        ("Tabby CAT", ["tab", "##by", "cat"]),
        ("table", ["tab", "##le"]),
        ("Tablé", ["tab", "##le"]),
        ("a-b", ["a", "-", "b"]),
        ("ω cat", [UNKNOWN, "cat"]),
        ("catω", [UNKNOWN]),
        ("c" * 100, ["c"] + ["##c"] * 99),
        ("c" * 101, [UNKNOWN]),
        ("[MASK]", ["[", "m", "##a", "##s", "##k", "]"]),
        (f"cat {END} {START}", ["cat", "[", "s", "##e", "##p", "]", "[", "c", "##l", "##s", "]"]),
    ],
)
def test_words_become_their_longest_pieces_and_special_tokens_are_ordinary_text(small, text, pieces):
    assert tokens(small, text) == [START, *pieces, END]


def test_rows_are_padded_with_zeros_and_their_lengths_told(small):
    made = small.inputs([small.tokenize(text) for text in ("cat", "a tabby cat")], 5)
    assert {name: array.dtype for name, array in made.items()} == {"tokens": np.int32, "length": np.int32}
    assert made["length"].tolist() == [3, 6]
    assert made["tokens"].shape == (2, 6)
    assert made["tokens"][0, 3:].tolist() == [0, 0, 0]
    assert small.inputs([small.tokenize("cat")], 9)["tokens"].shape == (1, 9)


@pytest.fixture(scope="module")
def published():
    """The published file as the library reads it, without cutting and padding."""
    tokenizer = Tokenizer.from_file(str(real_folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@pytest.fixture(scope="module", params=["vocab.txt", "tokenizer.json"])
def real(request, tmp_path_factory):
    """Ours, from each of the two files that hold the vocabulary."""
    text, words = wordpiece_json(real_folder() / request.param)
    assert words == 30522
    return WordPieceTokenizer.open(write(tmp_path_factory.mktemp("real"), text))


@pytest.mark.minilm
@pytest.mark.parametrize("text", ODD)
def test_odd_texts_have_the_published_tokens(real, published, text):
    assert real.tokenize(text) == published.encode(text).ids


@pytest.mark.minilm
@pytest.mark.parametrize("dataset", DATASETS)
def test_class_names_in_templates_have_the_published_tokens(real, published, dataset):
    for name in dataset_classes(dataset).names:
        for template in ["{}", data_lines("templates-vild.txt")[0]]:
            text = template.replace("{}", name)
            assert real.tokenize(text) == published.encode(text).ids, text


@pytest.mark.minilm
@settings(deadline=None, database=None, derandomize=True, max_examples=300)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_has_the_published_tokens(real, published, text):
    if not any(token in text for token in SPECIAL):
        assert real.tokenize(text) == published.encode(text).ids


@pytest.mark.minilm
def test_a_special_token_spelled_out_is_the_one_documented_difference(real, published):
    assert real.tokenize("a [MASK] b") != published.encode("a [MASK] b").ids


def damaged(change):
    content = small_content()
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "Expecting value"),
        ("[]", "no model"),
        ("[" * 100000, "recursion"),
        (damaged(lambda c: c["model"].update(vocab=[])), "not a table"),
        (damaged(lambda c: c["model"]["vocab"].update({UNKNOWN: 2**40})), "gaps"),
        (damaged(lambda c: c["model"]["vocab"].update({"x9": c["model"]["vocab"].pop(UNKNOWN)})), "lacks [UNK]"),
        (damaged(lambda c: c["model"].update(max_input_chars_per_word=10**9)), "steps"),
        (damaged(lambda c: c["model"].update(continuing_subword_prefix="")), "steps"),
        (damaged(lambda c: c["normalizer"].update(lowercase=False)), "steps"),
        (damaged(lambda c: c["added_tokens"].append({"id": 0, "content": "cat", "special": True})), "steps"),
        (damaged(lambda c: c.update(normalizer={"type": "Replace", "pattern": "(a+)+b", "content": ""})), "steps"),
    ],
)
def test_any_other_file_is_refused(tmp_path, content, found):
    with pytest.raises(BundleError) as caught:
        WordPieceTokenizer.open(write(tmp_path, content))
    assert found in caught.value.found


def test_a_huge_or_missing_file_is_refused(tmp_path, monkeypatch):
    with pytest.raises(BundleError):
        WordPieceTokenizer.open(tmp_path / "none.json")
    path = write(tmp_path, json.dumps(small_content()))
    monkeypatch.setattr(tokenizer_file, "FILE_LIMIT_BYTES", 100)
    with pytest.raises(BundleError, match="larger than 100 bytes"):
        WordPieceTokenizer.open(path)


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("vocab.txt", b"[CLS]\n[SEP]\ncat\n", "lacks [UNK]"),
        ("vocab.txt", b"[CLS]\n[SEP]\n[UNK]\ncat\ncat\n", "gaps"),
        ("vocab.txt", b"\xff\xfe", "utf-8"),
        ("tokenizer.json", b"{", "property name"),
        ("tokenizer.json", b"[]", "no vocabulary"),
        ("tokenizer.json", damaged(lambda c: c["normalizer"].update(lowercase=False)).encode(), "without case"),
        ("tokenizer.json", damaged(lambda c: c["model"].update(type="BPE")).encode(), "without case"),
        ("tokenizer.json", damaged(lambda c: c.update(pre_tokenizer=None)).encode(), "without case"),
    ],
)
def test_a_vocabulary_of_another_kind_is_refused(tmp_path, name, content, found):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        wordpiece_json(path)
    assert found in caught.value.found
