"""Which of several lengths is said of what was asked."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import ReadLength


def test_length_of_the_dimension_and_region_asked_for(length: ReadLength) -> None:
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
def test_of_several_lengths_the_one_of_the_asked_dimension(
    length: ReadLength, category: str, text: str, metres: int
) -> None:
    assert length(text, category=category) == metres


def test_a_length_of_something_to_compare_with_is_not_the_answer(length: ReadLength) -> None:
    asked = "How tall is Region [0]?"
    for text in (
        "A typical door is 2 m tall. Region [0] reaches half of it: 1 m.",
        "Assuming it is 2 m, Region [0] is 1 m.",
    ):
        assert length(text, category="height_data", question=asked) == 1


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
def test_of_several_lengths_the_one_said_of_what_was_asked(
    length: ReadLength, category: str, text: str, metres: int | None
) -> None:
    single = "What is asked of Region [0]?"
    pair = "What lies between Region [0] and Region [1]?"
    assert length(text, category=category, question=pair if "distance" in category else single) == metres
