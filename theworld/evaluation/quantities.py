"""Lengths and clock hours in free text.

Lengths are exact fractions of a metre: 5 ft against 4 ft is 1.25 times, not 1.2500000000000002 times, so an inclusive
bound includes its end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from theworld.evaluation.sentences import clean, readings, regions

_UNITS: tuple[tuple[str, Fraction], ...] = (
    (r"kilomet(?:er|re)s?|kms?", Fraction(1000)),
    (r"centimet(?:er|re)s?|cms?", Fraction(1, 100)),
    (r"millimet(?:er|re)s?|mms?", Fraction(1, 1000)),
    (r"met(?:er|re)s?|m", Fraction(1)),
    (r"yards?|yds?", Fraction(9144, 10000)),
    (r"feet|foot|ft|'(?![a-z])", Fraction(3048, 10000)),
    (
        # "in" is a unit only where a measure can end: "12 in tall", "12 in.", not "3 in the picture".
        r"inch(?:es)?|\"|in(?=\s*(?:$|[.,;:)!?\n]|(?:tall|wide|high|long|deep|thick|apart|away|from|across|to|above"
        r"|below|vertically|horizontally|in\s+(?:height|width|size))\b))",
        Fraction(254, 10000),
    ),
)
"""Spellings of a unit and its metres."""

_SMALL_NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS = {word: value for value, word in enumerate(_SMALL_NUMBERS)} | {
    word: 10 * value for value, word in enumerate(_TENS, 2)
}

_UNIT = "(?:" + "|".join(f"(?:{spelling})" for spelling, _ in _UNITS) + r")(?:(?<=['\"])|(?![a-z\d^/]))"
_DECIMAL = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:[.,]\d+)?|\.\d+)(?:e[+-]?\d+)?"
_NUMBER = rf"(?<![\w.,/<])(?:(?:\d+[ -]+)?\d+/[1-9]\d*|{_DECIMAL})"
_LENGTH = re.compile(
    rf"(?:between\s+(?P<from>{_NUMBER})(?:\s*{_UNIT})?\s+and\s+"
    rf"|(?P<low>{_NUMBER})(?:[\s-]*(?P<low_unit>{_UNIT}))?\s*(?:-|\bto\b|\bor\b)\s*)?"
    rf"(?P<value>{_NUMBER})[\s-]*(?P<unit>{_UNIT})"
)
_NUMBER_WORD = re.compile(
    rf"\b(?P<number>(?:{'|'.join(_WORDS)})(?:[\s-]+(?:{'|'.join(_WORDS)}))?)\b(?=[\s-]+(?:{_UNIT}|o'?\s?clock|to\b|or\b|and\b))"
)
_HALVES = (
    (re.compile(r"\b(\d+)\s+and\s+(?:a|one)\s+half\b"), r"\1.5"),
    (re.compile(rf"\b(\d+)\s+({_UNIT})\s+and\s+a\s+half\b"), r"\1.5 \2"),
    (re.compile(rf"\b(?:half\s+an?|half|a\s+half)\s+(?={_UNIT})"), "0.5 "),
    (re.compile(rf"\b(about|around|roughly|approximately|nearly|only|just)\s+an?\s+(?={_UNIT})"), r"\1 1 "),
)
_JOINT = re.compile(r"\s*(?:and|,|-)?\s*")
_BOUND = re.compile(r"\bthan\s+(?:\w+\s+)?$")
_DIMENSIONS = {
    "height_data": re.compile(r"\b(?:heights?|tall|high|vertical(?:ly)?)\b"),
    "width_data": re.compile(r"\b(?:widths?|wide|horizontal(?:ly)?|radius|breadth)\b"),
}
_HOUR = re.compile(
    r"(?<![\d.:<])(?:(?P<low>\d{1,2})\s*(?:-|\bto\b|\bor\b|\band\b)\s*)?"
    r"(?P<hour>\d{1,2})(?::(?P<minutes>[0-5]\d))?\s*-?o'?\s?clock\b|(?<![\d.:<])(?P<bare>\d{1,2}):(?P<late>[0-5]\d)(?!\d)"
)


@dataclass(frozen=True)
class _Length:
    metres: Fraction
    unit: Fraction
    start: int
    end: int


def parse_length(text: str, *, category: str = "", question: str = "") -> Fraction | None:
    """The length that an answer states, in metres; None where it states none.

    A range counts as its middle, feet and inches as their sum, and a bound ("wider than 3 feet") is no measurement.
    Of several lengths the declared answer comes first, then the conclusion, then the first one that is not about
    another dimension or another region than the ones asked for.

    Args:
        text: The answer.
        category: SpatialRGPT category, which says whether height or width is asked for.
        question: What was asked, for the regions it names.
    """
    asked = set(regions(clean(question)))
    for reading in readings(clean(text)):
        stated = [(sentence, lengths) for sentence in reading if (lengths := _lengths(_spell_out(sentence)))]
        if stated:
            _, lengths = min(stated, key=lambda found: _distance_from(found[0], category, asked))
            return lengths[0].metres
    return None


def parse_hour(text: str) -> Fraction | None:
    """The clock direction that an answer states, in (0, 12]; two neighbouring hours count as their middle."""
    cleaned = clean(text)
    alone = re.fullmatch(r"\W*(\d{1,2})\W*", cleaned)
    if alone:
        return _on_the_dial(Fraction(alone[1]))
    for reading in readings(cleaned):
        for sentence in reading:
            for match in _HOUR.finditer(_spell_out(sentence)):
                hour = _on_the_dial(Fraction(match["hour"] or match["bare"]))
                low = _on_the_dial(Fraction(match["low"])) if match["low"] else None
                if hour is None or (match["low"] and low is None):
                    continue
                if low is not None:
                    ahead = (hour - low) % 12
                    return (low + ahead / 2) % 12 or Fraction(12)
                minutes = Fraction(match["minutes"] or match["late"] or 0)
                return (hour + minutes / 60) % 12 or Fraction(12)
    return None


def within_quarter(prediction: Fraction, truth: Fraction) -> bool:
    """0.75 · truth ≤ prediction ≤ 1.25 · truth, both ends included (the official rule)."""
    return truth * 3 / 4 <= prediction <= truth * 5 / 4


def hours_apart(first: Fraction, second: Fraction) -> Fraction:
    """Distance of two clock directions around the dial, 0 to 6 hours."""
    difference = abs(first - second) % 12
    return min(difference, 12 - difference)


def _on_the_dial(hour: Fraction) -> Fraction | None:
    return hour if 0 < hour <= 12 else None


def _distance_from(sentence: str, category: str, asked: set[int]) -> int:
    """0 for a sentence that may be about what was asked, more the surer it is about something else."""
    own = _DIMENSIONS.get(category)
    other = next((pattern for name, pattern in _DIMENSIONS.items() if name != category), None) if own else None
    another_dimension = bool(own and other and other.search(sentence) and not own.search(sentence))
    mentioned = set(regions(sentence))
    another_region = bool(asked and mentioned and not mentioned & asked)
    return 2 * another_dimension + another_region


def _spell_out(sentence: str) -> str:
    """Number words and halves as digits, where a unit follows."""
    sentence = _NUMBER_WORD.sub(
        lambda match: str(sum(_WORDS[word] for word in re.split(r"[\s-]+", match["number"]))), sentence
    )
    for pattern, replacement in _HALVES:
        sentence = pattern.sub(replacement, sentence)
    return sentence


def _lengths(sentence: str) -> list[_Length]:
    found: list[_Length] = []
    for match in _LENGTH.finditer(sentence):
        if _BOUND.search(sentence[: match.start()]):
            continue
        length = _read(match)
        before = found[-1] if found else None
        if before and _continues(before, length, sentence[before.end : length.start]):
            found[-1] = _Length(before.metres + length.metres, length.unit, before.start, length.end)
        else:
            found.append(length)
    return found


def _read(match: re.Match[str]) -> _Length:
    unit = _metres(match["unit"])
    value = _value(match["value"]) * unit
    low_text = match["from"] or match["low"]
    if low_text is not None:
        low_unit = _metres(match["low_unit"]) if match["low_unit"] else unit
        low = _value(low_text) * low_unit
        value = low + value if unit < low_unit and value < low_unit else (low + value) / 2
    return _Length(value, unit, match.start(), match.end())


def _continues(before: _Length, length: _Length, between: str) -> bool:
    """Whether `length` is the inches of these feet, or the centimetres of these metres."""
    return length.unit < before.unit and length.metres < before.unit and _JOINT.fullmatch(between) is not None


def _metres(unit: str) -> Fraction:
    return next(metres for spelling, metres in _UNITS if re.match(rf"(?:{spelling})$", unit))


def _value(number: str) -> Fraction:
    if "/" in number:
        *whole, part = re.split(r"[ -]+", number)
        return Fraction(part) + (Fraction(whole[0]) if whole else 0)
    if re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", number):
        return Fraction(number.replace(",", ""))
    return Fraction(number.replace(",", "."))
