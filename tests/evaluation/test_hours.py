"""Clock directions in free text, compared exactly."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theworld.evaluation.hours import hours_apart, parse_hour
from theworld.evaluation.sentences import clean, readings


def hour(text: str) -> Fraction | None:
    """To "You are at Region [0]: where is Region [1]?"."""
    return parse_hour(readings(clean(text), consequents=True), asked=(0, 1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3 o'clock", 3),
        ("at THREE O\u2019CLOCK", 3),
        ("10 oclock", 10),
        ("3 o clock", 3),
        ("at 3", 3),
        ("at about 3.", 3),
        ("the 3 position", 3),
        ("clock position: 3", 3),
        ("at 2:30", Fraction(5, 2)),
        ("3:00 o'clock", 3),
        ("half past three", Fraction(7, 2)),
        ("quarter to four", Fraction(15, 4)),
        ("2-3 o'clock", Fraction(5, 2)),
        ("between 2 and 3 o'clock", Fraction(5, 2)),
        ("2 o'clock or 3 o'clock", Fraction(5, 2)),
        ("between ten and eleven o'clock", Fraction(21, 2)),
        ("between 11 and 1 o'clock", 12),
        ("12 or 1 o'clock", Fraction(1, 2)),
        ("12:30", Fraction(1, 2)),
        ("7", 7),
        ("Seven", 7),
        ("Seen from Region [0], Region [12] is at 4 o'clock.", 4),
        ("12 o'clock is straight ahead. Region [1] is at 2 o'clock.", 2),
        ("If 12 o'clock is where you look, Region [1] is at 2 o'clock.", 2),
        ("If you are at Region [0], you find Region [1] at 5 o'clock.", 5),
        ("Region [0] is at 12 o'clock. Region [1] is at 3 o'clock.", 3),
        ("Region [1] is at 3 o'clock; Region [0] is at 12 o'clock.", 3),
        ("Not at 8 o'clock. It's at 2 o'clock.", 2),
        ("Region [1] isn't at 8 o'clock; it's at 2 o'clock.", 2),
        ("Not 8 o'clock, but 2 o'clock.", 2),
        ("At 2 o'clock rather than 8 o'clock.", 2),
        ("I thought 8 o'clock, but it is 2 o'clock.", 2),
        ("At 8 o'clock; no wait, 2 o'clock.", 2),
        ("It can't be between 7 and 8 o'clock, so 2 o'clock.", 2),
        ("Not exactly 2 o'clock.", 2),
        ("12 o'clock = ahead, 3 o'clock = right, 9 o'clock = left. Region [1] is at 2 o'clock.", 2),
        ("With 12 o'clock in front and 6 o'clock behind, I'd say 2 o'clock.", 2),
        ("At 6 o'clock, behind you.", 6),
        ("At 6 o'clock behind you.", 6),
        # Undecidable: all that is said is where it is not.
        ("It is not at 2 o'clock.", None),
        ("2%", None),
        ("13 o'clock", None),
        ("0 o'clock", None),
        ("o'clock", None),
        ("to the right", None),
        ("2 meters", None),
        ("at 3 meters", None),
        ("at 90 degrees", None),
        ("Region [3]", None),
    ],
)
def test_hour(text: str, expected: Fraction | int | None) -> None:
    assert hour(text) == expected


@settings(deadline=None, derandomize=True)
@given(number=st.integers(1, 12), minutes=st.integers(0, 59))
def test_hour_round_trip(number: int, minutes: int) -> None:
    expected = (number + Fraction(minutes, 60)) % 12 or 12
    assert hour(f"It is at {number}:{minutes:02d}.") == expected
    assert hour(f"roughly at {number} o'clock") == number


@settings(deadline=None, derandomize=True)
@given(low=st.integers(1, 12), ahead=st.integers(1, 5))
def test_range_round_trip(low: int, ahead: int) -> None:
    high = (low + ahead - 1) % 12 + 1
    assert hour(f"between {low} and {high} o'clock") == ((low + Fraction(ahead, 2)) % 12 or 12)


def test_hours_go_around_the_dial() -> None:
    pairs = [(12, 1), (1, 12), (11, 1), (6, 12), (3, 3)]
    assert [hours_apart(Fraction(a), Fraction(b)) for a, b in pairs] == [1, 1, 2, 6, 0]
