"""Lengths in free text, and which of several answers the question.

Lengths are exact fractions of a metre: 5 ft against 4 ft is 1.25 times, not 1.2500000000000002 times, so an inclusive
bound includes its end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

from theworld.evaluation.claims import is_denied
from theworld.evaluation.dimensions import before_next, penalty
from theworld.evaluation.numbers import NUMBER, read_number, spell_out
from theworld.evaluation.sentences import Readings

_UNITS = {
    10_000: ("m", "meter", "meters", "metre", "metres", "mtr", "mtrs"),
    100: ("cm", "cms", "centimeter", "centimeters", "centimetre", "centimetres"),
    10: ("mm", "mms", "millimeter", "millimeters", "millimetre", "millimetres"),
    1_000: ("dm", "decimeter", "decimeters", "decimetre", "decimetres"),
    10_000_000: ("km", "kms", "kilometer", "kilometers", "kilometre", "kilometres"),
    254: ("in", "inch", "inches", '"', "''"),
    3_048: ("ft", "fts", "foot", "feet", "'"),
    9_144: ("yd", "yds", "yard", "yards"),
    16_093_440: ("mi", "mile", "miles"),
}
"""Length in tenths of a millimetre (all of them are whole) → spellings of the unit."""

_TENTHS_OF = {spelling: tenths for tenths, spellings in _UNITS.items() for spelling in spellings}
_TENTHS_IN_A_METRE = 10_000
_UNIT_WORDS = frozenset(_TENTHS_OF)
_METRIC = frozenset((10, 100, 1_000, 10_000, 10_000_000))
_LONG_SPELLINGS = "|".join(word for word in sorted(_UNIT_WORDS, key=len, reverse=True) if word not in ("in", "'"))
UNIT = (
    # "in" is a unit only where a measure can end: "12 in tall", "12 in.", not "3 in the picture".
    rf"(?:{_LONG_SPELLINGS}|'(?!['a-z])|in(?=\s*(?:$|[.,;:)!?\n\]x/-]|(?:tall|wide|high|long|deep|thick|apart|away|from"
    r"|across|to|above|below|or|and|vertically|horizontally|in\s+(?:height|width|size))\b)))"
    r"(?:(?<=['\"])|(?![a-z\d^]|/(?!\d)))"
)
"""Regular expression of a unit of length."""

_DIGIT = re.compile(r"\d(?<!<\d)")
_GLUED = re.compile(r"\d(?<!<\d)[\s-]*[(\[]?['\"cdfikmy]")
_QUANTITY = re.compile(rf"(?P<number>{NUMBER})(?:\+?[\s-]*[(\[]?(?P<unit>{UNIT})(?:\(s\))?)?")
_UNIT_FIRST = re.compile(rf"\b(?:in|unit)\s+({UNIT})\W*(?:is|are)?\W*({NUMBER})(?!\s*(?:px|pixels?|%))\b")
_RANGE = re.compile(r"\s*(?:-|~|\bto\b|\bup\s+to\b|\bor\b|\bbut\s+(?:less|under)(?:\s+than)?\b)\s*")
_RANGE_AFTER_BETWEEN = re.compile(r"\s*(?:-|\band\b|\bto\b)\s*")
_BETWEEN = re.compile(r"\bbetween\s+(?:\w+\s+)?$")
_TOLERANCE = re.compile(r"\s*(?:\+\s*/?\s*-|plus\s+or\s+minus|plus/minus|give\s+or\s+take)\s*")
_TOLERANCE_ASIDE = re.compile(r"\(\s*\+\s*/?\s*-[^()]*\)")
_JOINT = re.compile(r"\s*(?:and|,|-|&)?\s*")
_TIMES = re.compile(r"\s*(?:x|by)\s*(?:about\s+)?")
_UNIT_OF_A_BARE_REST = {3_048: 254, 10_000: 100}
"""The unit of a bare number that follows a whole number of units: 5'10, 1m 80."""
_PAIR = re.compile(r"(\d)(m|ft)(?=\d{1,2}(?:\s?(?:cm|in\b|inch|\")|\W|$))")
_BOUND = re.compile(
    r"\b(?:far|much|way|considerably|significantly|substantially)\s+(?:more|less)\s+than\s+$|\b(?!(?:more|less|other|fewer)\b)\w+er\s+than\s+(?:\w+\s+)?$|\b(?:more|less)\s+\w+\s+than\s+$"
)
_VERTICAL = ("height_data", "vertical_distance_data")
PIXELS = re.compile(r"\d\s*-?(?:px|pixels?)\b|\bpixels?\b")
"""A measure in pixels, which no length can be made of."""


class _Length(NamedTuple):
    """A length in a sentence: tenths of a millimetre as a fraction, those of its unit, and where it stands."""

    numerator: int
    denominator: int
    unit: int
    start: int
    end: int


def parse_length(found: Readings, *, category: str, asked: Iterable[int]) -> Fraction | None:
    """The length that an answer states, in metres; None where it states none.

    A range counts as its middle, feet and inches as their sum, and a comparison ("wider than 3 feet") or a denial ("not
    3 feet") is no measurement. Of several lengths the declared answer comes first, then the conclusion; among those,
    the one that is said of the dimension and the regions asked for, and the first of equals. A length said of another
    dimension or region counts only where there is no better one, as for the official judge, which converts whatever
    length it is given.

    Args:
        found: The answer's readings, with consequents.
        category: SpatialRGPT category, which says whether height, width or a distance is asked for.
        asked: Regions that the question names.
    """
    wanted, is_vertical = set(asked), category in _VERTICAL
    for reading in (*found.declared, found.concluded, found.everything):
        stated: list[tuple[str, list[_Length]]] = []
        for sentence in reading:
            has_unit, spelled = spell_out(sentence, UNIT, _UNIT_WORDS)
            if _DIGIT.search(spelled) and (has_unit or _GLUED.search(spelled)):
                spelled = _PAIR.sub(r"\1\2 ", _TOLERANCE_ASIDE.sub("", spelled) if "(" in spelled else spelled)
                if lengths := _lengths(spelled, is_vertical):
                    stated.append((spelled, lengths))
        if stated:
            best = _best(stated, category, wanted)
            return Fraction(best.numerator, best.denominator * _TENTHS_IN_A_METRE)
    return _unit_first(found)


def shares(prediction: Fraction, truth: Fraction) -> tuple[int, int]:
    """Two whole numbers in the ratio of the two lengths, which compare and divide faster than fractions do."""
    return prediction.numerator * truth.denominator, truth.numerator * prediction.denominator


def within_quarter(prediction: Fraction, truth: Fraction) -> bool:
    """0.75 · truth ≤ prediction ≤ 1.25 · truth, both ends included (the official rule)."""
    share, whole = shares(prediction, truth)
    return 3 * whole <= 4 * share <= 5 * whole


def _unit_first(found: Readings) -> Fraction | None:
    """A number after its unit: "distance in metres: 3.5"."""
    for sentence in found.everything:
        if match := _UNIT_FIRST.search(sentence):
            numerator, denominator = read_number(match[2])
            return Fraction(numerator * _TENTHS_OF[match[1]], denominator * _TENTHS_IN_A_METRE)
    return None


def _best(stated: list[tuple[str, list[_Length]]], category: str, wanted: set[int]) -> _Length:
    """The first of the lengths that answer the question best."""
    if len(stated) == 1 and len(stated[0][1]) == 1:
        return stated[0][1][0]
    penalties = [
        (_penalty(sentence, lengths, position, category, wanted), length)
        for sentence, lengths in stated
        for position, length in enumerate(lengths)
    ]
    return min(penalties, key=lambda pair: pair[0])[1]


def _penalty(sentence: str, lengths: list[_Length], position: int, category: str, wanted: set[int]) -> int:
    length = lengths[position]
    before = before_next(sentence[lengths[position - 1].end : length.start]) if position else sentence[: length.start]
    after = sentence[length.end : lengths[position + 1].start if position + 1 < len(lengths) else None]
    return penalty(before, after, category=category, wanted=wanted)


def _lengths(sentence: str, is_vertical: bool) -> list[_Length]:
    """The lengths of a sentence in order, sums and ranges already made one, those left out that are denied."""
    amounts = _amounts(sentence)
    if not [amount for amount in amounts if amount.unit]:
        return []
    compares = "than" in sentence
    if len(amounts) == 1 and not compares:
        return [] if is_denied(sentence, amounts[0].start) else amounts
    found: list[_Length] = []
    position = 0
    while position < len(amounts):
        first, following = amounts[position], amounts[position + 1 : position + 2]
        joined = _join(sentence, first, following[0], is_vertical) if following else None
        position += 2 if joined else 1
        length = joined or first
        is_bound = compares and _BOUND.search(sentence, max(0, length.start - 40), length.start)
        if length.unit and not is_bound and not is_denied(sentence, length.start):
            found.append(length)
    return found


def _amounts(sentence: str) -> list[_Length]:
    """Numbers with and without a unit, feet with inches and metres with centimetres already made one."""
    found: list[_Length] = []
    for match in _QUANTITY.finditer(sentence):
        number, unit = match["number"], match["unit"]
        numerator, denominator = read_number(number)
        tenths = _TENTHS_OF[unit] if unit else 0
        if found and (before := found[-1]).unit and before.denominator == 1:
            between = sentence[before.end : match.start()]
            rest = tenths
            if not unit and not between.strip() and len(number) <= 2:
                rest = _UNIT_OF_A_BARE_REST.get(before.unit, 0)
            if rest and _adds_up(before.unit, rest, numerator, denominator) and _JOINT.fullmatch(between):
                total = before.numerator * denominator + numerator * rest
                found[-1] = _Length(total, denominator, rest, before.start, match.end())
                continue
        found.append(_Length(numerator * (tenths or 1), denominator, tenths, match.start(), match.end()))
    return found


def _adds_up(unit: int, rest: int, numerator: int, denominator: int) -> bool:
    """Whether the second amount is a part of one unit of the first, as inches are of a foot and feet not of a metre."""
    return numerator * rest < unit * denominator and (unit in _METRIC) == (rest in _METRIC)


def _join(sentence: str, first: _Length, second: _Length, is_vertical: bool) -> _Length | None:
    """One length of two amounts: the middle of a range, the middle of a tolerance, one side of `2 x 3 m`."""
    between = sentence[first.end : second.start]
    unit = first.unit or second.unit
    if len(between) > 20 or not unit:
        return None
    if not first.unit:
        first = first._replace(numerator=first.numerator * unit, unit=unit)
    if _TOLERANCE.fullmatch(between):
        return first._replace(end=second.end)
    if not second.unit:
        return None
    if _TIMES.fullmatch(between):
        return (second if is_vertical else first)._replace(start=first.start, end=second.end)
    is_between = _BETWEEN.search(sentence, max(0, first.start - 24), first.start)
    if not (_RANGE_AFTER_BETWEEN if is_between else _RANGE).fullmatch(between):
        return None
    total = first.numerator * second.denominator + second.numerator * first.denominator
    return _Length(total, 2 * first.denominator * second.denominator, second.unit, first.start, second.end)
