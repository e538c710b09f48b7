import gzip
import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgeseg.errors import EdgesegError
from edgeseg.export import tokenizer as module
from edgeseg.export.tokenizer import byte_spellings, read_merges, tokenizer_json
from edgeseg.vocabulary.classes import DATASETS, data_lines, dataset_classes
from edgeseg.vocabulary.tokenizer import ClipTokenizer

pytestmark = pytest.mark.torch  # open_clip, the yardstick, imports torch

ODD = [
    "",
    "  ",
    "Traffic LIGHT",
    "a  double\t space",
    "line\nbreak",
    "café",
    "cafe\u0301",
    "Straße",
    "ΣΊΣΥΦΟΣ",
    "İstanbul",
    "日本語",
    "हिन्दी",
    "🚦👩\u200d🚀",
    "Tom &amp; Jerry &amp;amp; &eacute; &#39;s &lt;b&gt; &nbsp;x",
    "&ldquo;x&rdquo; <b>",
    "this&not that R&B",
    "dog's DOG'S they're I'd 'n'",
    "don’t “quoted” ‘x’ …–",
    "747 3d x² ½ Ⅳ ٣",
    "ﬁre ŉ ǆ ﬅone Ｆｕｌｌ ﾊﾟ",
    "a.b,c;d!? #hash {} '\u017f é'll",
    "a\u200bb\u00a0c\ufeffd",
    "word " * 200,
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(tokenizer_json(), encoding="utf-8")
    return ClipTokenizer.open(path)


@pytest.fixture(scope="module")
def original():
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def expected(original, text):
    return [original.sot_token_id, *original.encode(text), original.eot_token_id]


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_class_in_every_template_has_the_tokens_of_open_clip(tokenizer, original, dataset):
    for name in dataset_classes(dataset).names:
        for template in data_lines("templates-vild.txt"):
            text = template.replace("{}", name)
            assert tokenizer.tokenize(text) == expected(original, text), text


@pytest.mark.parametrize("text", ODD)
def test_odd_texts_have_the_tokens_of_open_clip(tokenizer, original, text):
    assert tokenizer.tokenize(text) == expected(original, text)


@settings(deadline=None, database=None, derandomize=True, max_examples=500)
@given(text=st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn", "Co", "Zl", "Zp"))))
def test_any_text_without_garbled_letters_has_the_tokens_of_open_clip(tokenizer, original, text):
    import ftfy

    assume(ftfy.fix_encoding(text) == text)
    assume("<" not in text)
    assert tokenizer.tokenize(text) == expected(original, text)


@pytest.mark.parametrize("text", ["cafÃ©", "&EACUTE;", "<start_of_text>", "<end_of_text> dog"])
def test_the_documented_differences_from_open_clip_are_the_only_ones_known(tokenizer, original, text):
    assert tokenizer.tokenize(text) != expected(original, text)


def test_padding_and_end_index_are_those_of_open_clip(tokenizer, original):
    texts = ["a cat", "a photo of a very large dog."]
    tokens, eot = tokenizer.encode(texts)
    reference = original(texts).numpy()
    assert (reference[:, : tokens.shape[1]] == tokens).all()
    assert eot.tolist() == reference.argmax(axis=1).tolist()


def test_the_file_has_clips_vocabulary_and_no_token_is_special():
    content = json.loads(tokenizer_json())
    assert len(content["model"]["vocab"]) == 49408
    assert content["added_tokens"] == []
    assert len(set(byte_spellings())) == 256


def test_without_open_clip_the_error_names_the_install_line(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EdgesegError, match=r"edgeseg\[host\]"):
        tokenizer_json()


PACKED = [gzip.compress(text, mtime=0) for text in (b"#v\na b\n", b"x" * 99)]


@pytest.mark.parametrize("content", [b"", b"not gzip", PACKED[0], PACKED[1][:-9]])
def test_a_damaged_table_of_merges_is_refused(tmp_path, content):
    path = tmp_path / module.BPE_FILE
    path.write_bytes(content)
    with pytest.raises(EdgesegError, match="bpe_simple_vocab"):
        read_merges(path)
