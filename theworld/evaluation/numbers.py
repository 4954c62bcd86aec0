"""Numbers in cleaned text: written words, halves and quarters brought to digits, and digits read exactly.

"two and a half feet" → "2.5 feet", "a metre and a half" → "1.5 metre"; "1,200" is 1200, "1,5" is 3/2, "2 1/2" is 5/2.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import cache

_UNITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS = {word: value for value, word in enumerate((*_UNITS, *_TEENS))}
_WORDS |= {word: 10 * value for value, word in enumerate(_TENS, 2)}

_UNIT_WORD = "|".join(_UNITS)
_BELOW_100 = rf"(?:(?:{'|'.join(_TENS)})(?:[\s-]+(?:{_UNIT_WORD}))?|{'|'.join(_TEENS)}|{_UNIT_WORD})\b"
_WRITTEN = re.compile(
    rf"\b(?:(?P<hundreds>an?|{_UNIT_WORD})[\s-]+hundred\b(?:\s+(?:and\s+)?(?P<rest>{_BELOW_100}))?|(?P<small>{_BELOW_100}))"
    rf"(?:\s+point(?P<decimals>(?:\s+(?:{_UNIT_WORD})\b)+))?"
)
_PARTS = frozenset(("half", "quarter", "quarters", "third", "thirds", "couple", "dozen"))
_ARTICLES = frozenset(("a", "an"))
_WORTH_A_LOOK = frozenset((*_WORDS, "hundred")) | _PARTS | _ARTICLES
_ARTICLE_BEFORE_UNIT = re.compile(r"\ban?\s+(?:[mfyckd]|in|hundred)")
_AND_PART = re.compile(r"\b(\d+)[\s-]+and[\s-]+(?:(?:an?|1)[\s-]+(half|quarter|third)\b|(3)[\s-]+quarters?\b|(\d/\d))")

_GROUPED = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?|[1-9]\d{0,2}(?: \d{3})+")
NUMBER = (
    r"[\d.](?<![\w.,/<^].)(?<!\.(?!\d))"  # a first character that searching skips to, then what it may not follow
    r"(?:\d*[ -]+\d+/[1-9]\d*|\d*/[1-9]\d*|(?<!0)\d{0,2}(?:,\d{3})+(?!\d)(?:\.\d+)?"
    r"|(?<!0)\d{0,2}(?: \d{3})+(?![\d./])|\d*(?:[.,]\d+)?(?:e[+-]?\d{1,2}(?!\d))?)"
)
"""Regular expression of a number in digits, for `read_number`: never part of a region, a power or a longer number."""


def spell_out(sentence: str, unit: str, unit_words: frozenset[str]) -> tuple[bool, str]:
    """Whether a unit stands in the sentence as a word of its own; if so, the sentence with number words as digits.

    "Half a", "a" and "a couple of" count only right before a unit.

    Args:
        sentence: Cleaned text.
        unit: Regular expression of a unit.
        unit_words: Its spellings.
    """
    apart = sentence
    for separator in "-(),:":
        if separator in apart:
            apart = apart.replace(separator, " ")
    tokens = apart.split()
    if unit_words.isdisjoint(tokens):
        return False, sentence
    words = _WORTH_A_LOOK.intersection(tokens)
    if not words and "/" not in sentence:
        return True, sentence
    has_article = not _ARTICLES.isdisjoint(words) and _ARTICLE_BEFORE_UNIT.search(sentence) is not None
    if has_article or not words <= _ARTICLES or "/" in sentence:
        sentence = _AND_PART.sub(_with_part, _WRITTEN.sub(_in_digits, sentence))
    if has_article or not _PARTS.isdisjoint(words):
        for pattern, replacement in _before_unit(unit):
            sentence = pattern.sub(replacement, sentence)
    return True, sentence


def in_digits(sentence: str) -> str:
    """The sentence with number words as digits."""
    if _WORTH_A_LOOK.isdisjoint(sentence.replace("-", " ").replace("'", " ").split()):
        return sentence
    return _WRITTEN.sub(_in_digits, sentence)


def read_number(text: str) -> tuple[int, int]:
    """What `NUMBER` matched, as numerator and denominator; a comma groups thousands where it can, else is a point."""
    if "/" in text:
        *whole, part = text.replace("-", " ").split()
        numerator, denominator = (int(number) for number in part.split("/"))
        return (int(whole[0]) * denominator if whole else 0) + numerator, denominator
    if "e" in text or "," in text or " " in text:
        grouped = _GROUPED.fullmatch(text)
        exact = Fraction(text.replace(",", "" if grouped else ".").replace(" ", ""))
        return exact.numerator, exact.denominator
    whole_part, _, decimals = text.partition(".")
    return int(whole_part + decimals), 10 ** len(decimals)


def _in_digits(match: re.Match[str]) -> str:
    hundreds = match["hundreds"]
    value = 100 * _WORDS.get(hundreds, 1) if hundreds else 0
    value += sum(_WORDS[word] for word in re.findall(r"[a-z]+", match["rest"] or match["small"] or ""))
    decimals = "".join(str(_WORDS[word]) for word in (match["decimals"] or "").split())
    return f"{value}.{decimals}" if decimals else str(value)


def _with_part(match: re.Match[str]) -> str:
    whole, part, quarters, fraction = match.groups()
    if fraction or part == "third":
        return f"{whole} {fraction or '1/3'}"
    return whole + (".75" if quarters else {"half": ".5", "quarter": ".25"}[part])


@cache
def _before_unit(unit: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    """What reads as a number only next to a unit."""
    article = rf"\s+(?:of\s+)?(?:an?\s+|1\s+)?(?={unit})"
    hedge = r"about|around|roughly|approximately|approx|nearly|almost|only|just|maybe|perhaps|over|under|than"
    after = r"\s+(?:tall|wide|high|long|deep|away|apart|from|in\s+(?:height|width))\b"
    return (
        (re.compile(rf"\b(\d+)\s+({unit})\s+and\s+(?:an?|1)\s+half\b"), r"\1.5 \2"),
        (re.compile(rf"\b(\d+)\s+({unit})\s+and\s+(?:an?|1)\s+quarter\b"), r"\1.25 \2"),
        (re.compile(rf"\ban?\s+({unit})\s+and\s+(?:an?|1)\s+half\b"), r"1.5 \1"),
        (re.compile(rf"\b3[\s-]+quarters{article}"), "0.75 "),
        (re.compile(rf"\b2[\s-]+thirds{article}"), "2/3 "),
        (re.compile(rf"\b(?:an?\s+|1[\s-]+)?half{article}"), "0.5 "),
        (re.compile(rf"\b(?:an?\s+|1[\s-]+)?quarter{article}"), "0.25 "),
        (re.compile(rf"\b(?:an?\s+|1[\s-]+)third{article}"), "1/3 "),
        (re.compile(rf"\ban?\s+couple\s+(?:of\s+)?(?={unit})"), "2 "),
        (re.compile(rf"\ban?\s+dozen\s+(?={unit})"), "12 "),
        (re.compile(rf"\b({hedge})\s+an?\s+(?={unit})"), r"\1 1 "),
        (re.compile(rf"\ban?\s+(?={unit}{after})|^\W*an?\s+(?={unit}\W*$)"), "1 "),
    )
