"""Text as CLIP's tokenizer wants it: the cleaning that its training applied, from the standard library alone.

The original runs the package ftfy. What is left out on purpose (docs/vocabulary.md): guessing a wrong encoding from
garbled letters, entities in capitals (`&EACUTE;`), and dropping control characters, which no class name may hold.
"""

from __future__ import annotations

import html
import re
import unicodedata

_ENTITY = re.compile(r"&#?[0-9A-Za-z]{1,24};")

_QUOTES = {**dict.fromkeys("ʼ‘’‚‛", "'"), **dict.fromkeys("“”„‟", '"')}
_DIGRAPHS = "ĲĳŉǱǲǳǄǅǆǇǈǉǊǋǌﬀﬁﬂﬃﬄﬆ"
_WIDTHS = "\u3000" + "".join(map(chr, range(0xFF01, 0xFFF0)))
_DROPPED = "\ufeff" + "".join(map(chr, (*range(0x206A, 0x2070), *range(0xFFF9, 0xFFFD))))
_PLAIN = str.maketrans(
    {char: unicodedata.normalize("NFKC", char) for char in _DIGRAPHS + _WIDTHS}
    | {"ﬅ": "ſt", **_QUOTES, **dict.fromkeys(_DROPPED, "")}
)


def clean(text: str) -> str:
    """Entities decoded; quotes, ligatures and widths made plain; composed (NFC); single spaces; lower case."""
    has_tags = "<" in text  # such a text may be about HTML: entities are then decoded once everything else is done
    previous = None
    while text != previous:
        previous = text
        if not has_tags:
            text = _ENTITY.sub(lambda match: html.unescape(match[0]), text)
        text = unicodedata.normalize("NFC", text.translate(_PLAIN))
    return " ".join(html.unescape(html.unescape(text)).split()).lower()
