"""Lengths in free text, and which of several answers the question.

Lengths are exact fractions of a metre: 5 ft against 4 ft is 1.25 times, not 1.2500000000000002 times, so an inclusive
bound includes its end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

from theworld.evaluation.numbers import NUMBER, read_number, spell_out
from theworld.evaluation.sentences import REGION, Readings

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
    r"(?:(?<=['\"])|(?![a-z\d^/]))"
)
"""Regular expression of a unit of length."""

_DIGIT = re.compile(r"\d(?<!<\d)")
_GLUED = re.compile(r"\d(?<!<\d)[\s-]*[(\[]?['\"cdfikmy]")
_QUANTITY = re.compile(rf"(?P<number>{NUMBER})(?:\+?[\s-]*[(\[]?(?P<unit>{UNIT})(?:\(s\))?)?")
_UNIT_FIRST = re.compile(rf"\b(?:in|unit)\s+({UNIT})\W*(?:is|are)?\W*({NUMBER})(?!\s*(?:px|pixels?|%))\b")
_RANGE = re.compile(r"\s*(?:-|~|\bto\b|\bup\s+to\b|\bor\b)\s*")
_RANGE_AFTER_BETWEEN = re.compile(r"\s*(?:-|\band\b|\bto\b)\s*")
_BETWEEN = re.compile(r"\bbetween\s+(?:\w+\s+)?$")
_TOLERANCE = re.compile(r"\s*(?:\+\s*/?\s*-|plus\s+or\s+minus|plus/minus|give\s+or\s+take)\s*")
_TOLERANCE_ASIDE = re.compile(r"\(\s*\+\s*/?\s*-[^()]*\)")
_JOINT = re.compile(r"\s*(?:and|,|-|&)?\s*")
_TIMES = re.compile(r"\s*(?:x|by)\s*(?:about\s+)?")
_OPERATOR_AFTER = re.compile(r"\s*(?:[+*/=]|x\b)")
_OPERATOR_BEFORE = re.compile(r"(?:[+*/]|\bx)\s*$")
_UNIT_OF_A_BARE_REST = {3_048: 254, 10_000: 100}
"""The unit of a bare number that follows a whole number of units: 5'10, 1m 80."""
_PAIR = re.compile(r"(\d)(m|ft)(?=\d{1,2}(?:\s?(?:cm|in\b|inch|\")|\W|$))")
_ASIDE = re.compile(r"[,;]|\b(?:and|but|while|whereas)\b")
_BOUND = re.compile(r"\b(?!(?:more|less|other|fewer)\b)\w+er\s+than\s+(?:\w+\s+)?$|\b(?:more|less)\s+\w+\s+than\s+$")
_MODIFIER_AFTER = re.compile(
    r"\s*(?:\([^)]*\d[^)]*\)\s*)?[(,]?\s*(?:in\s+(?:terms\s+of\s+|total\s+)?|of\s+)?(?:the\s+)?(?:its\s+)?([a-z]+)"
)
_DIMENSION_WORDS = {
    "vertical": ("height", "heights", "tall", "taller", "high", "higher", "vertical", "vertically", "above", "below"),
    "horizontal": ("width", "widths", "wide", "wider", "horizontal", "horizontally", "radius", "breadth", "broad")
    + ("sideways", "lateral", "laterally"),
    "direct": ("direct", "directly", "straight", "diagonal", "diagonally", "euclidean"),
    "depth": ("depth", "deep", "thick", "thickness"),
}
_DIMENSION = {word: dimension for dimension, words in _DIMENSION_WORDS.items() for word in words}
_ANY_DIMENSION = re.compile(rf"\b(?:{'|'.join(_DIMENSION)})\b")
_ASKED_DIMENSION = {
    "height_data": "vertical",
    "vertical_distance_data": "vertical",
    "width_data": "horizontal",
    "horizontal_distance_data": "horizontal",
    "distance_data": "direct",
}
_REFERENCE = re.compile(r"\b(?:typical(?:ly)?|standard|usual(?:ly)?|assum\w+|average|for\s+reference|scale)\b")
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

    A range counts as its middle, feet and inches as their sum, and a comparison ("wider than 3 feet") is no
    measurement. Of several lengths the declared answer comes first, then the conclusion; among those, the one that is
    said of the dimension and the regions asked for, and the first of equals. A length said of another dimension counts
    only where there is no better one, as for the official judge, which converts whatever length it is given.

    Args:
        found: The answer's readings, with consequents.
        category: SpatialRGPT category, which says whether height, width or a distance is asked for.
        asked: Regions that the question names.
    """
    dimension, wanted = _ASKED_DIMENSION.get(category, ""), set(asked)
    for reading in (*found.declared, found.concluded, found.everything):
        stated: list[tuple[str, list[_Length]]] = []
        for sentence in reading:
            has_unit, spelled = spell_out(sentence, UNIT, _UNIT_WORDS)
            if _DIGIT.search(spelled) and (has_unit or _GLUED.search(spelled)):
                spelled = _PAIR.sub(r"\1\2 ", _TOLERANCE_ASIDE.sub("", spelled) if "(" in spelled else spelled)
                if lengths := _lengths(spelled, dimension):
                    stated.append((spelled, lengths))
        if stated:
            best = _best(stated, dimension, wanted)
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


def _best(stated: list[tuple[str, list[_Length]]], dimension: str, wanted: set[int]) -> _Length:
    """The first of the lengths that answer the question best."""
    if len(stated) == 1 and len(stated[0][1]) == 1:
        return stated[0][1][0]
    penalties = [
        (_penalty(sentence, lengths, position, dimension, wanted), length)
        for sentence, lengths in stated
        for position, length in enumerate(lengths)
    ]
    return min(penalties, key=lambda pair: pair[0])[1]


def _penalty(sentence: str, lengths: list[_Length], position: int, dimension: str, wanted: set[int]) -> int:
    """0 for a length that is said of what was asked, more the surer it is said of something else."""
    length = lengths[position]
    before = sentence[lengths[position - 1].end if position else 0 : length.start]
    after = sentence[length.end : lengths[position + 1].start if position + 1 < len(lengths) else None]
    after = _ASIDE.split(after, maxsplit=1)[0]
    penalty = 0
    said = _dimension_said(before, after)
    if dimension and said != dimension:
        penalty += 4 if said else 0
    mentioned = {int(region) for region in REGION.findall(before + after)}
    if wanted and not mentioned & wanted:
        penalty += 2 if mentioned else 1
    if _REFERENCE.search(before):
        penalty += 2
    if _OPERATOR_AFTER.match(after) or _OPERATOR_BEFORE.search(before):
        penalty += 2
    return penalty


def _dimension_said(before: str, after: str) -> str | None:
    """The dimension that the words around a length name: right after it, else last before it, else later on."""
    modifier = _MODIFIER_AFTER.match(after)
    if modifier and modifier[1] in _DIMENSION:
        return _DIMENSION[modifier[1]]
    words = _ANY_DIMENSION.findall(before)[-1:] or _ANY_DIMENSION.findall(after)[:1]
    return _DIMENSION[words[0]] if words else None


def _lengths(sentence: str, dimension: str) -> list[_Length]:
    """The lengths of a sentence in order, sums and ranges already made one."""
    amounts = _amounts(sentence)
    if not [amount for amount in amounts if amount.unit]:
        return []
    compares = "than" in sentence
    if len(amounts) == 1 and not compares:
        return amounts
    found: list[_Length] = []
    position = 0
    while position < len(amounts):
        first, following = amounts[position], amounts[position + 1 : position + 2]
        joined = _join(sentence, first, following[0], dimension) if following else None
        position += 2 if joined else 1
        length = joined or first
        if length.unit and not (compares and _BOUND.search(sentence, max(0, length.start - 40), length.start)):
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


def _join(sentence: str, first: _Length, second: _Length, dimension: str) -> _Length | None:
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
        return (second if dimension == "vertical" else first)._replace(start=first.start, end=second.end)
    is_between = _BETWEEN.search(sentence, max(0, first.start - 24), first.start)
    if not (_RANGE_AFTER_BETWEEN if is_between else _RANGE).fullmatch(between):
        return None
    total = first.numerator * second.denominator + second.numerator * first.denominator
    return _Length(total, 2 * first.denominator * second.denominator, second.unit, first.start, second.end)
