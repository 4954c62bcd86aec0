"""Lengths and hours in free text, compared exactly."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theworld.evaluation.quantities import hours_apart, parse_hour, parse_length, within_quarter

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
    ],
)
def test_length(text: str, metres: str) -> None:
    assert parse_length(text) == Fraction(metres)


@pytest.mark.parametrize(
    "text",
    ["", "300 pixels", "30 % of the image", "3 in the picture", "at the foot of the bed", "wider than 3 feet", "2 m2"]
    + ["Is it 3 meters?", "1 square meter", "very close", "Region [0]", "12"],
)
def test_no_length(text: str) -> None:
    assert parse_length(text) is None


def test_length_of_the_dimension_and_region_asked_for() -> None:
    both = "Width: 30 cm\nHeight: 60 cm"
    assert parse_length(both, category="height_data") == Fraction(60, 100)
    assert parse_length(both, category="width_data") == Fraction(30, 100)
    other = "Region [1] is 2 m tall. Region [0] is 3 m tall."
    assert parse_length(other, category="height_data", question="How tall is Region [0]?") == 3
    assert parse_length(other, category="height_data", question="How tall is Region [1]?") == 2


@settings(deadline=None, derandomize=True)
@given(
    thousandths=st.integers(1, 10**6),
    unit=st.sampled_from([(unit, spelling) for unit, spellings in SPELLINGS.items() for spelling in spellings]),
    sentence=st.sampled_from(["{}", "It is {}.", "Region [0] is roughly **{}** away from Region [1]", "model\n({})\n"]),
    space=st.sampled_from(["", " "]),
)
def test_length_round_trip(thousandths: int, unit: tuple[Fraction, str], sentence: str, space: str) -> None:
    value = Fraction(thousandths, 1000)
    assert parse_length(sentence.format(f"{float(value)!r}{space}{unit[1]}")) == value * unit[0]


@settings(deadline=None, derandomize=True)
@given(feet=st.integers(1, 99), inches=st.integers(1, 11))
def test_feet_and_inches_round_trip(feet: int, inches: int) -> None:
    expected = (12 * feet + inches) * Fraction(254, 10000)
    for text in (f"{feet}'{inches}\"", f"{feet} ft {inches} in", f"{feet} feet and {inches} inches tall"):
        assert parse_length(text) == expected


@settings(deadline=None, derandomize=True)
@given(low=st.integers(1, 500), width=st.integers(1, 500), unit=st.sampled_from(["m", "cm", "feet", "yards"]))
def test_range_round_trip(low: int, width: int, unit: str) -> None:
    for text in (
        f"{low}-{low + width} {unit}",
        f"{low} to {low + width} {unit}",
        f"{low} {unit} - {low + width} {unit}",
    ):
        assert parse_length(text) == (parse_length(f"{2 * low + width} {unit}") or 0) / 2


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("3 o'clock", 3),
        ("at THREE O\u2019CLOCK", 3),
        ("10 oclock", 10),
        ("at 2:30", Fraction(5, 2)),
        ("2-3 o'clock", Fraction(5, 2)),
        ("between 11 and 1 o'clock", 12),
        ("12:30", Fraction(1, 2)),
        ("7", 7),
        ("Seen from Region [0], Region [12] is at 4 o'clock.", 4),
        ("13 o'clock", None),
        ("0 o'clock", None),
        ("to the right", None),
        ("2 meters", None),
    ],
)
def test_hour(text: str, hour: Fraction | int | None) -> None:
    assert parse_hour(text) == hour


@settings(deadline=None, derandomize=True)
@given(hour=st.integers(1, 12), minutes=st.integers(0, 59))
def test_hour_round_trip(hour: int, minutes: int) -> None:
    expected = (hour + Fraction(minutes, 60)) % 12 or 12
    assert parse_hour(f"It is at {hour}:{minutes:02d}.") == expected
    assert parse_hour(f"roughly at {hour} o'clock") == hour


def test_both_ends_of_the_quarter_count_in_mixed_units() -> None:
    truth = parse_length("4 feet")
    assert truth is not None
    assert [within_quarter(Fraction(p, 10) * Fraction(3048, 10000), truth) for p in (29, 30, 40, 50, 51)] == [
        False,
        True,
        True,
        True,
        False,
    ]


def test_hours_go_around_the_dial() -> None:
    pairs = [(12, 1), (1, 12), (11, 1), (6, 12), (3, 3)]
    assert [hours_apart(Fraction(a), Fraction(b)) for a, b in pairs] == [1, 1, 2, 6, 0]
