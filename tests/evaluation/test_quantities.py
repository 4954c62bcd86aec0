"""Lengths in free text, compared exactly."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theworld.evaluation.quantities import parse_length, within_quarter
from theworld.evaluation.sentences import clean, readings, regions


def length(text: str, *, category: str = "distance_data", question: str = "") -> Fraction | None:
    return parse_length(readings(clean(text), consequents=True), category=category, asked=regions(clean(question)))


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
def test_length(text: str, metres: str) -> None:
    assert length(text) == Fraction(metres)


@pytest.mark.parametrize(
    "text",
    ["", "300 pixels", "30 % of the image", "3 in the picture", "at the foot of the bed", "wider than 3 feet", "2 m2"]
    + ["several meters", "a few feet", "3 m/s", "3 cubic metres", "2 m\u00b2", "in a yard", "300px", "the two regions"]
    + ["Is it 3 meters?", "1 square meter", "very close", "Region [0]", "12"],
)
def test_no_length(text: str) -> None:
    assert length(text) is None


def test_length_of_the_dimension_and_region_asked_for() -> None:
    both = "Width: 30 cm\nHeight: 60 cm"
    assert length(both, category="height_data") == Fraction(60, 100)
    assert length(both, category="width_data") == Fraction(30, 100)
    other = "Region [1] is 2 m tall. Region [0] is 3 m tall."
    assert length(other, category="height_data", question="How tall is Region [0]?") == 3
    assert length(other, category="height_data", question="How tall is Region [1]?") == 2


@pytest.mark.parametrize(
    ("category", "text", "metres"),
    [
        ("height_data", "It is 1 m wide and 2 m tall.", 2),
        ("width_data", "It is 2 m tall and 1 m wide.", 1),
        ("height_data", "width: 1 m, height: 2 m", 2),
        ("width_data", "a height of 2 m and a width of 1 m", 1),
        ("height_data", "1 m (width) x 2 m (height)", 2),
        ("width_data", "1 m (width) x 2 m (height)", 1),
        ("height_data", "1 x 2 m", 2),
        ("width_data", "1 m by 2 m", 1),
        ("vertical_distance_data", "They are 3 m apart horizontally and 1 m vertically.", 1),
        ("horizontal_distance_data", "The vertical distance is 1 m, the horizontal distance is 3 m.", 3),
        ("distance_data", "Horizontally 3 m, vertically 4 m, the direct distance is 5 m.", 5),
        ("height_data", "It is 2 m wide.", 2),  # the only length there is counts, as for the official judge
    ],
)
def test_of_several_lengths_the_one_of_the_asked_dimension(category: str, text: str, metres: int) -> None:
    assert length(text, category=category) == metres


def test_a_length_of_something_to_compare_with_is_not_the_answer() -> None:
    asked = "How tall is Region [0]?"
    for text in (
        "A typical door is 2 m tall. Region [0] reaches half of it: 1 m.",
        "Assuming it is 2 m, Region [0] is 1 m.",
    ):
        assert length(text, category="height_data", question=asked) == 1


@settings(deadline=None, derandomize=True)
@given(
    thousandths=st.integers(1, 10**6),
    unit=st.sampled_from([(unit, spelling) for unit, spellings in SPELLINGS.items() for spelling in spellings]),
    sentence=st.sampled_from(["{}", "It is {}.", "Region [0] is roughly **{}** away from Region [1]", "model\n({})\n"]),
    space=st.sampled_from(["", " "]),
)
def test_length_round_trip(thousandths: int, unit: tuple[Fraction, str], sentence: str, space: str) -> None:
    value = Fraction(thousandths, 1000)
    assert length(sentence.format(f"{float(value)!r}{space}{unit[1]}")) == value * unit[0]


@settings(deadline=None, derandomize=True)
@given(feet=st.integers(1, 99), inches=st.integers(1, 11))
def test_feet_and_inches_round_trip(feet: int, inches: int) -> None:
    expected = (12 * feet + inches) * Fraction(254, 10000)
    for text in (f"{feet}'{inches}\"", f"{feet} ft {inches} in", f"{feet} feet and {inches} inches tall"):
        assert length(text) == expected


@settings(deadline=None, derandomize=True)
@given(low=st.integers(1, 500), width=st.integers(1, 500), unit=st.sampled_from(["m", "cm", "feet", "yards"]))
def test_range_round_trip(low: int, width: int, unit: str) -> None:
    for text in (
        f"{low}-{low + width} {unit}",
        f"{low} to {low + width} {unit}",
        f"{low} {unit} - {low + width} {unit}",
    ):
        assert length(text) == (length(f"{2 * low + width} {unit}") or 0) / 2


def test_both_ends_of_the_quarter_count_in_mixed_units() -> None:
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
def test_styles_round_trip(tenths: int, unit: tuple[Fraction, str], style: str, around: str) -> None:
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
def test_words_round_trip(number: int, part: tuple[str, int]) -> None:
    expected = number + (Fraction(1, part[1]) if part[1] else 0)
    assert length(f"Roughly {in_words(number)}{part[0]} metres.") == expected


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
def test_odd_numbers_are_read_exactly_or_not_at_all(text: str, metres: str | None) -> None:
    assert length(text) == (None if metres is None else Fraction(metres))


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
def test_a_denied_length_is_not_the_answer(text: str, metres: int | None) -> None:
    assert length(text) == metres


@pytest.mark.parametrize(
    ("category", "text", "metres"),
    [
        ("distance_data", "Region [0] is 7 m tall, and the distance between Region [0] and Region [1] is 3 m.", 3),
        (
            "distance_data",
            "Region [0] is 4 m from the camera. Region [1] is 7 m from the camera. They are 3 m apart.",
            3,
        ),
        ("distance_data", "The camera is 7 m away from Region [0]. Region [0] and Region [1] are 3 m apart.", 3),
        ("distance_data", "With the van (about 5 m long) as a reference, the distance is 3 m.", 3),
        ("distance_data", "They are 1 m apart horizontally and 2 m in depth, for a total of 3 m.", 3),
        ("distance_data", "Region [0] is 3 m away from Region [1].", 3),
        ("distance_data", "3 m from Region [1]", 3),
        ("height_data", "It is 7 m away and 3 m tall.", 3),
        ("height_data", "It is 7 m from the camera. It reaches up 3 m.", 3),
        ("distance_data", "From the camera's view they are 3 m apart, 7 m in depth.", 3),
        ("height_data", "At a distance of 7 m, it is 3 m tall.", 3),
        ("height_data", "Region [0] is 2 m long and 3 m high.", 3),
        ("width_data", "7 m (h) x 3 m (w)", 3),
        ("width_data", "W: 3 m, H: 7 m", 3),
        ("vertical_distance_data", "The distance is 7 m; vertically they are 3 m apart.", 3),
        ("vertical_distance_data", "They are 3 m apart vertically.", 3),
        ("vertical_distance_data", "They are 7 m apart, with a vertical separation of 3 m.", 3),
        # The only length there is counts, as for the official judge, even if it is said of another region.
        ("width_data", "Region [1] is 3 m wide.", 3),
    ],
)
def test_of_several_lengths_the_one_said_of_what_was_asked(category: str, text: str, metres: int | None) -> None:
    single = "What is asked of Region [0]?"
    pair = "What lies between Region [0] and Region [1]?"
    assert length(text, category=category, question=pair if "distance" in category else single) == metres
