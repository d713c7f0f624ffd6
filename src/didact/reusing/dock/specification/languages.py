"""Which languages texts are in, by their script and their commonest short words. No model, no download."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

_SCRIPTS = {
    "ARABIC": "ar",
    "ARMENIAN": "hy",
    "BENGALI": "bn",
    "CYRILLIC": "ru",
    "DEVANAGARI": "hi",
    "GEORGIAN": "ka",
    "GREEK": "el",
    "HANGUL": "ko",
    "HEBREW": "he",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "TAMIL": "ta",
    "THAI": "th",
}
_WORDS = {
    "de": "der die das und ist nicht ein eine mit für auf den von zu sich auch wird dem des im wie",
    "en": "the and is of to in that it was for with are this be as on not have you by from at or",
    "es": "el los las que una con por para está como pero más del y se lo su es al",
    "fr": "le les des est une dans que pour pas qui avec sur ce il et du au plus nous vous je",
    "it": "il che di non una per sono gli della con è nel anche questo dei alla più lo si",
    "nl": "de het een en van niet dat is op voor met zijn te aan ook maar wordt er bij",
    "pl": "nie się jest że na do to jak i w z po od przez dla tym są ale",
    "pt": "os uma não que para com está mais por do da em um se dos ao como foi seu",
    "sv": "och att det som är på för av med inte den till har om ett var jag",
    "tr": "bir ve bu için ile de da çok olarak daha gibi değil ne var",
}
_HOLDING = {
    word: [code for code in _WORDS if word in _WORDS[code].split()] for code in _WORDS for word in _WORDS[code].split()
}
_MOST_LETTERS = 200_000
_SHARE = 0.15  # of the evidence that a language needs to be named


def recognised(texts: Sequence[str]) -> tuple[str, ...]:
    """The codes (ISO 639-1) of the languages that make up at least 15 % of what was recognised, sorted.

    Scripts of one language are told by their letters; languages in Latin letters by function words (ten of them).
    Empty when nothing is recognised.
    """
    text = _excerpt(texts)
    evidence: Counter[str] = Counter()
    for word in re.findall(r"[^\W\d_]+", text.lower()):
        for code in _of_word(word):
            evidence[code] += 1.0 / len(_of_word(word))  # type: ignore[assignment]
    if evidence["ja"]:
        evidence["ja"] += evidence.pop("zh", 0)  # Han letters beside kana are Japanese
    total = sum(evidence.values())
    return tuple(sorted(code for code, count in evidence.items() if count >= _SHARE * total > 0))


def _of_word(word: str) -> list[str]:
    if word in _HOLDING:
        return _HOLDING[word]
    name = unicodedata.name(word[0], "")
    if name.startswith("CJK"):
        return ["zh"]
    return [code for script, code in _SCRIPTS.items() if name.startswith(script)]


def _excerpt(texts: Sequence[str]) -> str:
    """A piece of every text, so that a few long ones do not speak for all."""
    each = max(100, _MOST_LETTERS // max(1, len(texts)))
    return " ".join(text[:each] for text in texts)[:_MOST_LETTERS]
