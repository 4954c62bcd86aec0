"""Numbers in cleaned text: written words, halves and quarters brought to digits, and digits read exactly.

"two and a half feet" → "2 1/2 feet", "a metre and a half" → "1.5 metre"; "1,200" is 1200, "1,5" is 3/2, "2 1/2" is 5/2.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

_UNITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS = {word: value for value, word in enumerate((*_UNITS, *_TEENS))}
_WORDS |= {word: 10 * value for value, word in enumerate(_TENS, 2)}

_UNIT_WORD = "|".join(_UNITS)
_BELOW_100 = rf"(?:(?:{'|'.join(_TENS)})(?:[\s-]+(?:{_UNIT_WORD}))?|{'|'.join(_TEENS)}|{_UNIT_WORD})\b"
_BELOW_1000 = rf"(?:(?:an?|{_BELOW_100})[\s-]+hundred\b(?:\s+(?:and\s+)?{_BELOW_100})?|{_BELOW_100})"
_DECIMALS = rf"point(?P<{{}}>(?:\s+(?:{_UNIT_WORD})\b)+)"
_WRITTEN = re.compile(
    rf"\b(?P<whole>(?:an?|{_BELOW_100})[\s-]+thousand\b(?:,?\s+(?:and\s+)?{_BELOW_1000})?|{_BELOW_1000})"
    rf"(?:\s+{_DECIMALS.format('decimals')})?"
    # "Point five" alone: not what stands behind "that point".
    rf"|(?:^\W*|\b(?:is|about|around|roughly|approximately|nearly|almost|only|just)\s+)\b{_DECIMALS.format('bare')}"
)
_PARTS = frozenset(("half", "quarter", "quarters", "third", "thirds", "fourth", "fourths", "couple", "dozen"))
_ARTICLES = frozenset(("a", "an"))
_WORTH_A_LOOK = frozenset((*_WORDS, "hundred", "thousand", "point")) | _PARTS | _ARTICLES
_ARTICLE_BEFORE_UNIT = re.compile(r"\ban?\s+(?:[mfyckd]|in|hundred|thousand)")
_DENOMINATORS = {"half": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fourth": 4, "fourths": 4}
_AND_PART = re.compile(
    rf"\b(\d+)[\s-]+and[\s-]+(?:(an?|[123])[\s-]+({'|'.join(_DENOMINATORS)})\b(?!\s+(?:of\s+)?an?\s)|(\d/\d))"
)

_GROUPED = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?")
_EXPONENT = r"(?:e[+-]?\d{1,2}(?!\d))?"
_DIGITS = 40
"""As many a length can have. More of them, as of a model that repeats a digit until it is stopped, are no number; more
decimals than that are dropped."""
_MORE, _SOME, _GROUPS = rf"\d{{0,{_DIGITS}}}", rf"\d{{1,{_DIGITS}}}", rf"{{1,{_DIGITS // 3}}}"
NUMBER = (
    r"[\d.](?<![\w.,/<^].)"  # a first character that searching skips to, then what it may not follow
    rf"(?:(?<=\.)\d+(?![.,/]?\d){_EXPONENT}|(?<!\.)(?:"
    rf"{_MORE}[ -]+{_SOME}/[1-9]{_MORE}(?!\d)|{_MORE}/[1-9]{_MORE}(?!\d)"
    rf"|(?<!0)\d{{0,2}}(?:,\d{{3}}){_GROUPS}(?!\d)(?:\.\d+)?"
    rf"|(?<!0)\d{{0,2}}(?: \d{{3}}){_GROUPS}(?!\d|[./]\d)(?:,\d+)?"
    rf"|(?<!0)\d{{0,2}}(?:(?:\.\d{{3}}){_GROUPS},\d+|(?:'\d{{3}}){_GROUPS})(?!\d)"
    rf"|{_MORE}(?!\d)(?:[.,]\d+)?{_EXPONENT}))"
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
    if "e" in text or "," in text or " " in text or "'" in text:
        text = text.replace(" ", "").replace("'", "")
        if _GROUPED.fullmatch(text):
            text = text.replace(",", "")
        elif "," in text:
            text = text.replace(".", "").replace(",", ".")
    number, _, exponent = text.partition("e")
    whole_part, _, decimals = number.partition(".")
    decimals = decimals[:_DIGITS]
    power = int(exponent or 0) - len(decimals)
    return int(whole_part + decimals) * 10 ** max(power, 0), 10 ** max(-power, 0)


def _in_digits(match: re.Match[str]) -> str:
    if match["bare"]:
        return match[0].removesuffix(f"point{match['bare']}") + f"0.{_one_by_one(match['bare'])}"
    thousands = below = 0
    for word in re.findall(r"[a-z]+", match["whole"]):
        if word == "thousand":
            thousands, below = 1000 * (below or 1), 0
        elif word == "hundred":
            below = 100 * (below or 1)
        else:
            below += _WORDS.get(word, 0)  # "a" and "and" are nothing of their own
    value = thousands + below
    return f"{value}.{_one_by_one(match['decimals'])}" if match["decimals"] else str(value)


def _one_by_one(words: str) -> str:
    return "".join(str(_WORDS[word]) for word in words.split())


def _with_part(match: re.Match[str]) -> str:
    whole, count, part, fraction = match.groups()
    if fraction is None:
        fraction = f"{count if count.isdigit() else 1}/{_DENOMINATORS[part]}"
    return f"{whole} {fraction}"


def _dozens(match: re.Match[str]) -> str:
    return f"{12 * int(match[1])} "


@cache
def _before_unit(unit: str) -> tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...]:
    """What reads as a number only next to a unit."""
    article = rf"\s+(?:of\s+)?(?:an?\s+|1\s+)?(?={unit})"
    hedge = r"about|around|roughly|approximately|approx|nearly|almost|only|just|maybe|perhaps|over|under|than"
    after = r"\s+(?:tall|wide|high|long|deep|away|apart|from|in\s+(?:height|width))\b"
    no_unit = rf"(?!\s+(?:of\s+)?(?:an?\s+)?{unit})"  # "four feet and half an inch" has a unit for its half
    return (
        (re.compile(rf"\b(\d+)\s+({unit})\s+and\s+(?:an?|1)\s+half\b{no_unit}"), r"\1.5 \2"),
        (re.compile(rf"\b(\d+)\s+({unit})\s+and\s+(?:an?|1)\s+quarter\b{no_unit}"), r"\1.25 \2"),
        (re.compile(rf"\ban?\s+({unit})\s+and\s+(?:an?|1)\s+half\b{no_unit}"), r"1.5 \1"),
        (re.compile(rf"\b(?:an?\s+)?half\s+(?:an?\s+)?dozen\s+(?={unit})"), "6 "),
        (re.compile(rf"\b(\d{{1,3}})\s+dozen\s+(?={unit})"), _dozens),
        (re.compile(rf"(\d)\s+of\s+an?\s+(?={unit})"), r"\1 "),
        (re.compile(rf"\b3[\s-]+(?:quarters|fourths){article}"), "0.75 "),
        (re.compile(rf"\b2[\s-]+thirds{article}"), "2/3 "),
        (re.compile(rf"\b(?:an?\s+|1[\s-]+)?half{article}"), "0.5 "),
        (re.compile(rf"\b(?:an?\s+|1[\s-]+)?quarter{article}"), "0.25 "),
        (re.compile(rf"\b(?:an?\s+|1[\s-]+)third{article}"), "1/3 "),
        (re.compile(rf"\ban?\s+couple\s+(?:of\s+)?(?={unit})"), "2 "),
        (re.compile(rf"\ban?\s+dozen\s+(?={unit})"), "12 "),
        (re.compile(rf"\b({hedge})\s+an?\s+(?={unit})"), r"\1 1 "),
        (re.compile(rf"\ban?\s+(?={unit}{after})|^\W*an?\s+(?={unit}\W*$)"), "1 "),
    )
