import pytest

from edgeseg.vocabulary.cleaning import clean


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  Traffic \t LIGHT\n", "traffic light"),
        ("Tom &amp;amp; Jerry", "tom & jerry"),
        ("“dog’s” ﬁre", '"dog\'s" fire'),
        ("Ｆｕｌｌ\u3000width", "full width"),
        ("cafe\u0301 \ufeff\u206a", "café"),
        ("&ldquo;x&rdquo; <b>", "“x” <b>"),
        ("&EACUTE; cafÃ©", "&eacute; cafã©"),
        ("&amp;amp; <b>", "& <b>"),
        ("", ""),
    ],
)
def test_text_is_cleaned_as_documented(text, cleaned):
    assert clean(text) == cleaned
