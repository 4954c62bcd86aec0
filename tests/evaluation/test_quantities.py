"""Lengths in free text, compared exactly."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theworld.evaluation.quantities import within_quarter

if TYPE_CHECKING:
    from conftest import ReadLength


SPELLINGS = {
    Fraction(1): ("m", "meter", "meters", "metre", "metres", "M"),
    Fraction(1, 100): ("cm", "centimeters", "centimetre"),
    Fraction(1, 1000): ("mm", "millimeters", "millimetre"),
    Fraction(254, 10000): ("inches", "inch", '"'),
    Fraction(3048, 10000): ("ft", "feet", "foot", "'"),
    Fraction(9144, 10000): ("yards", "yd", "yds"),
}


@pytest.mark.parametrize(
    ("text", "metres"),
    [
        ("5 feet 6 inches", "1.6764"),
        ("5'6\"", "1.6764"),
        ("5 ft. 6 in.", "1.6764"),
        ("5 feet and 6 inches", "1.6764"),
        ("five feet six inches", "1.6764"),
        ("5 feet, 60 inches", "1.524"),
        ("1 m 20 cm", "1.2"),
        ("12 in tall", "0.3048"),
        ("twenty-five feet", "7.62"),
        ("half a meter", "0.5"),
        ("one and a half feet", "0.4572"),
        ("about a foot", "0.3048"),
        ("1/2 m", "0.5"),
        ("5\u00bd feet", "1.6764"),
        ("1,200 mm", "1.2"),
        ("1,5 m", "1.5"),
        ("10\u201315 cm", "0.125"),
        ("between 10 and 15 cm", "0.125"),
        ("10 cm to 15 cm", "0.125"),
        ("2 m (6.6 feet)", "2"),
        ("Region [0] and Region [1] are 2 m apart", "2"),
        ("model\n3 m\nuser\n5 m", "3"),
        ("A) 2 m\nB) 4 m\n\n**Answer:** B) 4 m", "4"),
        ("A chair is 90 cm tall. Therefore, it must be 1.8 m.", "1.8"),
        ("0 meters", "0"),
        ("two and a half feet", "0.762"),
        ("2 and 1/2 feet", "0.762"),
        ("two and three quarters feet", "0.8382"),
        ("a metre and a half", "1.5"),
        ("2 feet and a half", "0.762"),
        ("half of a metre", "0.5"),
        ("three-quarters of an inch", "0.01905"),
        ("a third of a metre", "1/3"),
        ("\u2154 m", "2/3"),
        ("a couple of feet", "0.6096"),
        ("a dozen inches", "0.3048"),
        ("a hundred metres", "100"),
        ("one hundred and twenty centimetres", "1.2"),
        ("zero point seven five metres", "0.75"),
        ("an inch away", "0.0254"),
        ("six foot two", "1.8796"),
        ("6ft2in", "1.8796"),
        ("5'10", "1.778"),
        ("3' 6''", "1.0668"),
        ("1m80cm", "1.8"),
        ("1m 80", "1.8"),
        ("two or three feet", "0.762"),
        ("between two and three feet", "0.762"),
        ("between about 2 m and 3 m", "2.5"),
        ("2~3 m", "2.5"),
        ("more than 2 m but less than 3 m", "2.5"),
        ("5' to 6'", "1.6764"),
        ("5'6\" to 6'", "1.7526"),
        ("2 m \u00b1 10 cm", "2"),
        ("2 m plus or minus 0.5 m", "2"),
        ("just over 3 m", "3"),
        ("more than 3 m away", "3"),
        ("1 200 mm", "1.2"),
        ("1\u202f200 mm", "1.2"),
        ("0,75 m", "0.75"),
        ("0,123 m", "0.123"),
        ("1.234 m", "1.234"),
        ("1e3 mm", "1"),
        ("2 metre(s)", "2"),
        ("3.5 (meters)", "3.5"),
        ("Distance in metres: 3.5", "3.5"),
        ("3 ft + 2 ft = 5 ft", "1.524"),
        ("5 feet (1.5 m)", "1.524"),
        ("1.5 m (5 feet)", "1.5"),
        ("1.5m/5ft", "1.5"),
        ("If the car is 4 m long, they are 8 m apart.", "8"),
        ("It is 2.4 m, so roughly 8 feet.", "2.4384"),
        ("300 pixels, or about 2 m", "2"),
        ("two miles", "3218.688"),
        ("\\boxed{2.5 \\text{ m}}", "2.5"),
        ("region 1 2 m away", "2"),
    ],
)
def test_length(length: ReadLength, text: str, metres: str) -> None:
    assert length(text) == Fraction(metres)


@pytest.mark.parametrize(
    "text",
    ["", "300 pixels", "30 % of the image", "3 in the picture", "at the foot of the bed", "wider than 3 feet", "2 m2"]
    + ["several meters", "a few feet", "3 m/s", "3 cubic metres", "2 m\u00b2", "in a yard", "300px", "the two regions"]
    + ["Is it 3 meters?", "1 square meter", "very close", "Region [0]", "12"],
)
def test_no_length(length: ReadLength, text: str) -> None:
    assert length(text) is None


@settings(deadline=None, derandomize=True)
@given(
    thousandths=st.integers(1, 10**6),
    unit=st.sampled_from([(unit, spelling) for unit, spellings in SPELLINGS.items() for spelling in spellings]),
    sentence=st.sampled_from(["{}", "It is {}.", "Region [0] is roughly **{}** away from Region [1]", "model\n({})\n"]),
    space=st.sampled_from(["", " "]),
)
def test_length_round_trip(
    length: ReadLength, thousandths: int, unit: tuple[Fraction, str], sentence: str, space: str
) -> None:
    value = Fraction(thousandths, 1000)
    assert length(sentence.format(f"{float(value)!r}{space}{unit[1]}")) == value * unit[0]


@settings(deadline=None, derandomize=True)
@given(feet=st.integers(1, 99), inches=st.integers(1, 11))
def test_feet_and_inches_round_trip(length: ReadLength, feet: int, inches: int) -> None:
    expected = (12 * feet + inches) * Fraction(254, 10000)
    for text in (f"{feet}'{inches}\"", f"{feet} ft {inches} in", f"{feet} feet and {inches} inches tall"):
        assert length(text) == expected


@settings(deadline=None, derandomize=True)
@given(low=st.integers(1, 500), width=st.integers(1, 500), unit=st.sampled_from(["m", "cm", "feet", "yards"]))
def test_range_round_trip(length: ReadLength, low: int, width: int, unit: str) -> None:
    for text in (
        f"{low}-{low + width} {unit}",
        f"{low} to {low + width} {unit}",
        f"{low} {unit} - {low + width} {unit}",
    ):
        assert length(text) == (length(f"{2 * low + width} {unit}") or 0) / 2


def test_both_ends_of_the_quarter_count_in_mixed_units(length: ReadLength) -> None:
    truth = length("4 feet")
    assert truth is not None
    assert [within_quarter(Fraction(p, 10) * Fraction(3048, 10000), truth) for p in (29, 30, 40, 50, 51)] == [
        False,
        True,
        True,
        True,
        False,
    ]


@settings(deadline=None, derandomize=True)
@given(
    tenths=st.integers(1, 10**6),
    unit=st.sampled_from([(unit, spelling) for unit, spellings in SPELLINGS.items() for spelling in spellings]),
    style=st.sampled_from(["{:.1f}", "{:,.1f}", "{:.3e}", "{:.4f}"]),
    around=st.sampled_from(["{} tall", "about {}", "(~{})", "$\\approx {}$", "It\u2019s {}!", "**Answer:** {}"]),
)
def test_styles_round_trip(
    length: ReadLength, tenths: int, unit: tuple[Fraction, str], style: str, around: str
) -> None:
    number = style.format(tenths / 10)
    written = Fraction(number.replace(",", ""))
    assert abs(written - Fraction(tenths, 10)) <= Fraction(tenths, 10) / 1000
    assert length(around.format(f"{number} {unit[1]}")) == written * unit[0]


_TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SMALL = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_SMALL += ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]


def in_words(number: int) -> str:
    if number >= 100:
        rest = f" and {in_words(number % 100)}" if number % 100 else ""
        return f"{_SMALL[number // 100]} hundred{rest}"
    if number < 20:
        return _SMALL[number]
    return _TENS[number // 10] + (f"-{_SMALL[number % 10]}" if number % 10 else "")


@settings(deadline=None, derandomize=True)
@given(number=st.integers(1, 999), part=st.sampled_from([("", 0), (" and a half", 2), (" and a quarter", 4)]))
def test_words_round_trip(length: ReadLength, number: int, part: tuple[str, int]) -> None:
    expected = number + (Fraction(1, part[1]) if part[1] else 0)
    assert length(f"Roughly {in_words(number)}{part[0]} metres.") == expected


@pytest.mark.parametrize(
    ("text", "metres"),
    [
        ("It is not 7 m but 3 m.", 3),
        ("The answer isn't 7 m; it's 3 m.", 3),
        ("Not 7 meters. 3 meters.", 3),
        ("I don't think it is 7 m, it is 3 m.", 3),
        ("3 m instead of 7 m", 3),
        ("Rather than 7 m, it is 3 m.", 3),
        ("not between 7 and 8 m, just 3 m", 3),
        ("I first thought 7 m, but it is closer to 3 m.", 3),
        ("It looks like 7 m, but it is actually 3 m.", 3),
        ("7 m. No wait, 3 m.", 3),
        ("First guess: 7 m. Corrected: 3 m.", 3),
        ("I can't say exactly, but 3 m.", 3),
        ("It appears to be 3 m, but it is actually hard to tell.", 3),
        # Bounds and doubts about precision state the number itself.
        ("not more than 3 m", 3),
        ("It is not exactly 3 m, but close.", 3),
        ("no less than 3 m", 3),
        # Undecidable: all that is said is what it is not.
        ("It's definitely not 3 meters.", None),
        ("It is anything but 3 m.", None),
        ("It can't be 3 m.", None),
        ("far more than 3 m", None),
        ("much less than 3 m", None),
    ],
)
def test_a_denied_length_is_not_the_answer(length: ReadLength, text: str, metres: int | None) -> None:
    assert length(text) == metres
