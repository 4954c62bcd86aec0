"""The contact sheet shows every picture whole and every character of the text, inside its card."""

import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from theworld.data.inspection import contact_sheet as module
from theworld.data.inspection.contact_sheet import CARD_WIDTH, Card, contact_sheet
from theworld.data.inspection.lettering import text_width, visible
from theworld.data.pictures.drawing import region_colours


def _card(image=None, turns=(("Is it?", "Yes."),), title="row-1", notes=("a note",)):
    return Card(title=title, notes=notes, image=image or Image.new("RGB", (64, 48)), turns=turns)


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(alphabet=st.sampled_from("abcdefWWiil.,?!'  \n\u200b中é") | st.characters(), max_size=300)
    | st.lists(st.sampled_from(["Region [3]", "Region [12],", "word", "x" * 90, "(Region [0])."])).map(" ".join),
    width=st.integers(120, 600),
)
@example(text="a\r\x1cb\x85\u2028c\u2029", width=120)  # all that ends a line or a paragraph
def test_wrapped_text_is_whole_and_inside(text, width):
    lines = module._wrap(text, width, 17, (0, 0, 0), label="Q")
    shown = "".join(piece.text for line in lines for piece in line.pieces)
    assert shown.replace(" ", "") == re.sub(r"[ \n]", "", visible(text))
    for line in lines:
        ends = [piece.x + module._width(piece.text, line.size) for piece in line.pieces]
        assert all(end <= width + 1 for end in ends)
        starts = [piece.x for piece in line.pieces[1:]]
        assert all(end <= start + 1e-6 for end, start in zip(ends, starts, strict=False))  # nothing lies on anything
        assert line.height >= line.size


def test_words_stay_whole_where_they_fit():
    lines = module._wrap("one two three Region [1], four", 150, 17, (0, 0, 0))
    rows = [" ".join(piece.text for piece in line.pieces) for line in lines]
    assert len(rows) > 1
    assert any("Region [1] ," in row for row in rows)  # the name and its comma on one line
    broken = module._wrap("x" * 100, 150, 17, (0, 0, 0))
    assert "".join(piece.text for line in broken for piece in line.pieces) == "x" * 100


def test_pictures_are_whole_and_cards_apart():
    colours = [(10 * number, 200 - 9 * number, 77) for number in range(7)]
    cards = [
        _card(Image.new("RGB", (300 + 40 * number, 200 + 90 * number), colour), turns=(("Why? " * 9 * number, "So."),))
        for number, colour in enumerate(colours, start=1)
    ]
    sheet = contact_sheet(cards, title="seven")
    assert sheet.width == 3 * CARD_WIDTH + 4 * 24
    pixels = np.array(sheet)
    for card, colour in zip(cards, colours, strict=True):
        rows, columns = np.nonzero((pixels == colour).all(axis=2))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert len(rows) == height * width  # a full rectangle: nothing lies on it
        assert abs(width / height - card.image.width / card.image.height) < 0.02
        assert width <= CARD_WIDTH


@pytest.mark.parametrize("size", [(8, 8), (96, 96), (128, 40)])
def test_small_pictures_keep_their_pixels(size):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    fitted = module._fit(image, 584)
    factor = fitted.width // size[0]
    assert fitted.size == (factor * size[0], factor * size[1])
    assert np.array_equal(np.array(fitted)[::factor, ::factor], np.array(image))
    assert fitted.width > 584 - size[0]


def test_a_region_s_name_stands_on_its_colour():
    for number in (0, 2, 13):
        fill, ink = region_colours(number)
        named = np.array(contact_sheet([_card(turns=((f"Where is Region [{number}]?", "There."),))], title="t"))
        plain = np.array(contact_sheet([_card(turns=((f"Where is Area [{number}]?", "There."),))], title="t"))
        assert (named == fill).all(axis=2).sum() > 300
        assert (named == ink).all(axis=2).sum() > 20
        assert (plain == fill).all(axis=2).sum() == 0


def test_a_longer_text_makes_a_longer_sheet():
    short = contact_sheet([_card()], title="t")
    long = contact_sheet([_card(turns=(("Is it? " * 100, "Yes."),))], title="t")
    assert long.height > short.height + 100
    assert long.width == short.width


def test_characters_that_would_not_show_are_named():
    assert visible("plain ASCII [1]") == "plain ASCII [1]"
    assert visible("a\u200bb\x00c") == "a<U+200B>b<U+0000>c"
    assert visible("\ud800") == "<U+D800>"
    assert visible("\U0010fffe") == "<U+10FFFE>"
    assert visible("two words\nnext") == "two words\nnext"
    assert text_width("WW", 17) > text_width("ii", 17) > 0


def test_no_cards_are_refused():
    with pytest.raises(ValueError, match="found no samples to show"):
        contact_sheet([], title="none")
