"""Odd numbers and number words, compared exactly."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import ReadLength


@pytest.mark.parametrize(
    ("text", "metres"),
    [
        # Dots of a pause are no decimal point; between two numbers they are a range.
        ("Hmm...3.5 m", "3.5"),
        ("I would say...4 m", "4"),
        ("perhaps\u20264 m", "4"),
        ("approx..1.2 m", "1.2"),
        ("1.5..3.5 m", "2.5"),
        ("3...5 m", "4"),
        (" .5 m", "0.5"),
        (".2.5 m", None),
        (".5/2 m", None),
        (".5 1/2 m", "0.5"),  # "1/2 m" stands alone; what ".5" belongs to is unknown
        # A number without end is none; decimals without end are those of their first 40 digits.
        (f"{'7' * 400} m", None),
        (f"{'7' * 5000} m", None),
        (f"{'7' * 5000}.5 m", None),
        (f"0.{'5' * 5000} m", "0." + "5" * 40),
        (f"{'1,' + '000,' * 200}000 m", None),
        (f"2 m, region [{'1' * 5000}]", "2"),
        # Grouping in other countries.
        ("2.345,5 mm", "2.3455"),
        ("2 345,5 mm", "2.3455"),
        ("2'345 mm", "2.345"),
        # Words.
        ("three thousand millimetres", "3"),
        ("a thousand millimetres", "1"),
        ("two thousand, three hundred and ten mm", "2.31"),
        ("fifteen hundred mm", "1.5"),
        ("roughly point four metres", "0.4"),
        ("from that point four metres away", "4"),
        ("half a dozen feet", "1.8288"),
        ("three dozen inches", "0.9144"),
        ("four and two-thirds feet", "1.4224"),
        ("five and three-fourths feet", "1.7526"),
        ("three-fourths of a metre", "0.75"),
        ("0.6 of a metre", "0.6"),
        # Inches may have a fraction of their own.
        ("6'2.5\"", "1.8923"),
        ("6 feet 2.5 inches", "1.8923"),
        ("6 ft 2 1/2 in", "1.8923"),
        ("six feet two and a half inches", "1.8923"),
        ("4 ft and one half inch", "1.2319"),
        ("4 feet & 3 inches", "1.2954"),
        ("2 ft 11.75 in", "0.90805"),
        # Metres and feet are two ways to say it, not a sum.
        ("1 m, 3 ft", "1"),
        ("2.5 (+/- 0.3) m", "2.5"),
        ("3+ m", "3"),
        ("> 3 m", "3"),  # as "more than 3 m"
    ],
)
def test_odd_numbers_are_read_exactly_or_not_at_all(length: ReadLength, text: str, metres: str | None) -> None:
    assert length(text) == (None if metres is None else Fraction(metres))
