"""Clock directions in free text, in hours of (0, 12]."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from theworld.evaluation.claims import is_denied
from theworld.evaluation.numbers import in_digits
from theworld.evaluation.quantities import UNIT
from theworld.evaluation.sentences import REGION, Readings, contains_any

_TIME = re.compile(r"(\d(?<![\w.:,/<].)\d?(?::[0-5]\d)?)(?![\d:])(\s*-?\s*o'?\s?-?\s?clock\b)?")
_TO = re.compile(r"\s*(?:-|~|\bto\b|\bor\b|\band\b|/)\s*(?:at\s+|the\s+)?")
_HOUR = r"\d{1,2}(?::[0-5]\d)?"
_POSITION = re.compile(
    rf"(?:\b(?:at|toward|towards|clock\s+(?:position|direction)|hour)\b(?:\s+(?:about|around|roughly|approximately|the|of|is))*"
    rf"\s*:?\s*(?P<at>{_HOUR})|(?<![\w.:,/<])(?P<named>\d{{1,2}})(?=\s+(?:position|hour|direction)\b))"
    rf"(?!\s*(?:%|degrees|°|px|pixels?|{UNIT}|[\d:]|\.\d))"
)
_DIGIT = re.compile(r"\d(?<!<\d)")
_PASSED = ("half", "quarter")
_PAST = re.compile(r"\b(half|quarter)\s+(past|to)\s+(\d{1,2})\b")
_ALONE = re.compile(rf"[^\w<]*(?:(?P<low>{_HOUR})\s*(?:-|to|or)\s*)?(?P<hour>{_HOUR})[^\w%°]*")
_DEFINES = re.compile(
    r"\s*(?:position\s+|direction\s+)?(?:=|(?:is|being|as|represents?|means|corresponds?|points?)\b(?!\s+the\s+dir))"
)
_AHEAD = re.compile(r"\s*(?:straight\s+|directly\s+)?(?:in\s+front|ahead|forward|behind)\b")
_FACING = re.compile(r"\b(?:facing|face|looking|where|if|with)\s+(?:\w+\s+)?$")
_FROM = re.compile(r"\bfrom\s+(?:the\s+\w+\s+of\s+)?<\d+>")


def parse_hour(found: Readings, *, asked: Sequence[int] = ()) -> Fraction | None:
    """The clock direction that an answer states, in (0, 12]; None where it states none.

    Two hours ("between 2 and 3", "2 or 3 o'clock") count as their middle, going around the dial. Of several, the one
    said of the region that the question looks for, its last one, comes first; a hour that only says how the dial lies
    ("12 o'clock is straight ahead") is no answer.

    Args:
        found: The answer's readings, with consequents.
        asked: Regions of the question: the one where the reader stands, then the one to find.
    """
    if len(found.everything) == 1 and (alone := _ALONE.fullmatch(in_digits(found.everything[0]))):
        return _middle(alone["low"], alone["hour"])
    for reading in (*found.declared, found.concluded, found.everything):
        stated = [
            (spelled, hour) for sentence in reading for spelled in [in_digits(sentence)] for hour in _hours(spelled)
        ]
        if stated:
            return min(stated, key=lambda said: _penalty(said[0], said[1], asked))[1].hour
    return None


def hours_apart(first: Fraction, second: Fraction) -> Fraction:
    """Distance of two clock directions around the dial, 0 to 6 hours."""
    if first.denominator == second.denominator == 1:  # nearly always; whole numbers are much faster
        whole = abs(first.numerator - second.numerator) % 12
        return Fraction(min(whole, 12 - whole))
    difference = abs(first - second) % 12
    return min(difference, 12 - difference)


class _Hour(NamedTuple):
    """An hour in a sentence and where it stands."""

    hour: Fraction
    start: int
    end: int


def _hours(sentence: str) -> list[_Hour]:
    """The clock directions of a sentence, two that are joined made one, those left out that are denied."""
    if not _DIGIT.search(sentence):
        return []
    found = _clock_times(sentence) if "clock" in sentence or ":" in sentence else []
    if not found:
        said = [(_past(match), match) for match in _PAST.finditer(sentence)] if contains_any(sentence, _PASSED) else []
        said = said or [(_middle(None, match["at"] or match["named"]), match) for match in _POSITION.finditer(sentence)]
        found = [_Hour(hour, match.start(), match.end()) for hour, match in said if hour is not None]
    return [hour for hour in found if not is_denied(sentence, hour.start)]


def _clock_times(sentence: str) -> list[_Hour]:
    """What says "o'clock" or is written as 3:30, made one with a time before it that is joined to it."""
    found: list[_Hour] = []
    before: re.Match[str] | None = None
    for match in _TIME.finditer(sentence):
        time, is_clock = match.groups()
        if is_clock or ":" in time:
            low, start = None, match.start()
            if before is not None and _TO.fullmatch(sentence, before.end(), match.start()):
                low, start = before[1], before.start()
                if found and found[-1].end == before.end():
                    found.pop()
            hour = _middle(low, time)
            if hour is not None:
                found.append(_Hour(hour, start, match.end()))
        before = match
    return found


def _penalty(sentence: str, hour: _Hour, asked: Sequence[int]) -> int:
    """0 for an hour that may be said of the region to find."""
    penalty = 0
    if _DEFINES.match(sentence, hour.end) or _FACING.search(sentence, max(0, hour.start - 30), hour.start):
        penalty += 2
    elif _AHEAD.match(sentence, hour.end):
        penalty += 1
    before = REGION.findall(_FROM.sub(" ", sentence[: hour.start]))
    if asked and before and int(before[-1]) != asked[-1]:
        penalty += 1
    return penalty


def _middle(low: str | None, high: str) -> Fraction | None:
    """The hour of `high`, or the middle from `low` ahead to it; None off the dial."""
    end = _on_the_dial(high)
    if low is None or end is None:
        return end
    start = _on_the_dial(low)
    return None if start is None else _wrapped(start + (end - start) % 12 / 2)


def _on_the_dial(time: str) -> Fraction | None:
    hour, _, minutes = time.partition(":")
    if not 1 <= int(hour) <= 12:
        return None
    return _wrapped(Fraction(60 * int(hour) + int(minutes), 60)) if minutes else Fraction(int(hour))


def _wrapped(hour: Fraction) -> Fraction:
    return hour % 12 or Fraction(12)


def _past(match: re.Match[str]) -> Fraction | None:
    hour = _on_the_dial(match[3])
    if hour is None:
        return None
    part = Fraction(1, 2) if match[1] == "half" else Fraction(1, 4)
    return _wrapped(hour + (part if match[2] == "past" else -part))
