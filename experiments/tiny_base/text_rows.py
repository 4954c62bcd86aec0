"""Conversations without an image: facts about some regions in words, then questions that compare them.

A base language model knows from text that "far left" is left of "center" and that a chair is taller than a mug. This
is where the tiny base learns it. It is never shown an image with such a question.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from theworld.data.synthetic.base_questions import name, place_words
from theworld.data.synthetic.kinds import COLOURS, KINDS
from theworld.data.synthetic.questions import relation_turn, write_length
from theworld.data.synthetic.relations import MARGINS, RELATIONS, Relation

SMALLEST_GAP = 6
"""Regions whose coordinates (0 to 99) differ by less are not compared."""

LENGTH_QUESTIONS = {
    "height": ("How tall is {a}?", "What is the height of {a}?"),
    "width": ("How wide is {a}?", "What is the width of {a}?"),
}
LENGTH_ANSWERS = {"height": "{a} is {value} tall.", "width": "{a} is {value} wide."}
FORMS = ("coordinates", "coarse", "fine", "caption", "kind")
PLACE_RELATIONS = {"left": "x", "right": "x", "above": "y", "below": "y"}
SIZE_RELATIONS = ("big", "small", "tall", "short", "wide", "thin")


@dataclass(frozen=True, kw_only=True)
class Imagined:
    """A region that exists in words only; `x` and `y` are percent of the image, sizes are in metres."""

    number: int
    kind: str
    colour: str
    x: int
    y: int
    sizes: dict[str, float]

    @property
    def tag(self) -> str:
        """Its name in the text."""
        return f"Region [{self.number}]"

    def value(self, relation: Relation) -> float:
        """What the relation compares; y is counted downwards in the image and upwards in the relation."""
        return {"x": self.x, "z": -self.y}.get(relation.measure, self.sizes.get(relation.measure, 0.0))


@dataclass(frozen=True, kw_only=True)
class TextRow:
    """A conversation and the regions whose facts its first question states."""

    turns: list[tuple[str, str]]
    regions: list[Imagined]
    num_stated: int
    """How many mentions of regions the statement of facts takes."""
    form: str
    """How the facts are put: one of `FORMS`."""


def text_row(rng: np.random.Generator, *, turns: int) -> TextRow:
    """One conversation of at most `turns` questions; its facts are places or kinds, in one of five forms."""
    setting = str(rng.choice(("room", "tabletop")))
    numbers = rng.permutation(8)[: int(rng.integers(2, 5))]
    regions = [_imagine(int(number), setting, rng) for number in numbers]
    form = str(rng.choice(FORMS))
    facts = [_fact(region, form) for region in regions]
    if form == "kind":
        facts.insert(0, "This is a room." if setting == "room" else "This is a table.")
    asked: list[tuple[str, str]] = []
    for _ in range(turns):
        turn = _size_turn(regions, rng) if form == "kind" else _place_turn(regions, form, rng)
        if turn is not None:
            asked.append(turn)
    if not asked:
        return text_row(rng, turns=turns)
    asked[0] = (" ".join([*facts, asked[0][0]]), asked[0][1])
    return TextRow(turns=asked, regions=regions, num_stated=len(regions), form=form)


def _imagine(number: int, setting: str, rng: np.random.Generator) -> Imagined:
    fitting = [kind for kind, built in KINDS.items() if any(place[0] == setting for place in built.sizes)]
    kind = str(rng.choice(fitting))
    options = [sizes for place, sizes in KINDS[kind].sizes.items() if place[0] == setting]
    sizes = options[int(rng.integers(len(options)))]
    width = rng.uniform(*sizes.width)
    height = width * rng.uniform(*sizes.height)
    depth = width * rng.uniform(*sizes.depth) if sizes.depth is not None else width
    return Imagined(
        number=number,
        kind=kind,
        colour=str(rng.choice(list(COLOURS))),
        x=int(rng.integers(3, 97)),
        y=int(rng.integers(3, 97)),
        sizes={"height": height, "width": width, "volume": width * height * depth},
    )


def _fact(region: Imagined, form: str) -> str:
    if form == "coordinates":
        return f"{region.tag} is at ({region.x}, {region.y})."
    if form == "kind":
        return f"{region.tag} is {name(region.colour, region.kind)}."
    fine = form == "fine"
    place = place_words(region.x / 100, region.y / 100, fine=fine)
    shown = f"{name(region.colour, region.kind)} " if form == "caption" else ""
    return f"{region.tag} is {shown}at the {place}."


def _place_turn(regions: list[Imagined], form: str, rng: np.random.Generator) -> tuple[str, str] | None:
    word = str(rng.choice(list(PLACE_RELATIONS)))
    one, other = _two(regions, rng)
    cells = {"coordinates": 100, "fine": 5}.get(form, 3)
    along = PLACE_RELATIONS[word]
    places = [getattr(region, along) * cells // 100 for region in (one, other)]
    if abs(places[0] - places[1]) < (SMALLEST_GAP if form == "coordinates" else 1):
        return None
    return _compare(RELATIONS[word], one, other, rng)


def _size_turn(regions: list[Imagined], rng: np.random.Generator) -> tuple[str, str] | None:
    if rng.random() < 0.3:
        measure = str(rng.choice(list(LENGTH_QUESTIONS)))
        region = regions[int(rng.integers(len(regions)))]
        question = str(rng.choice(LENGTH_QUESTIONS[measure])).format(a=region.tag)
        value = write_length(region.sizes[measure], rng)
        return question, LENGTH_ANSWERS[measure].format(a=region.tag, value=value)
    relation = RELATIONS[str(rng.choice(SIZE_RELATIONS))]
    one, other = _two(regions, rng)
    low, high = sorted((one.value(relation), other.value(relation)))
    return _compare(relation, one, other, rng) if high >= MARGINS[relation.measure] * low else None


def _two(regions: list[Imagined], rng: np.random.Generator) -> tuple[Imagined, Imagined]:
    first, second = rng.permutation(len(regions))[:2]
    return regions[int(first)], regions[int(second)]


def _compare(relation: Relation, one: Imagined, other: Imagined, rng: np.random.Generator) -> tuple[str, str]:
    true_first = relation.sign * (one.value(relation) - other.value(relation)) > 0
    choice = bool(rng.random() < 0.5)
    question, answer = relation_turn(relation, rng, choice=choice, true_first=true_first, a=one.tag, b=other.tag)
    return question, re.sub(r"Region \[(\d)\]", lambda found: (one, other)[int(found[1])].tag, answer)
