"""Questions for pretraining the tiny base (the `pretrain` split): what is it, which colour, where in the image.

They concern one region at a time, or list regions. Nothing here compares two regions, measures, or speaks of depth:
that is what the world tokens are to be tested on later, so a base must not have seen it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from theworld.data.synthetic.kinds import COLOURS, KINDS
from theworld.data.synthetic.questions import MASK
from theworld.data.synthetic.rows import Row, make_row
from theworld.data.synthetic.truth import ObjectTruth, SceneTruth

Turn = tuple[str, str, tuple[int, ...]]
"""Question, answer, and the regions (indices of objects) in order of mention."""

ROWS3, COLUMNS3 = ("top", "middle", "bottom"), ("left", "center", "right")
ROWS5 = ("very top", "upper part", "middle", "lower part", "very bottom")
COLUMNS5 = ("far left", "left", "center", "right", "far right")


def place_words(x: float, y: float, *, fine: bool) -> str:
    """Where a point of the image lies, in words.

    Args:
        x: Share of the width, in [0, 1).
        y: Share of the height, in [0, 1), counted downwards.
        fine: One of 25 names (`very top, far left` … `middle, center`) instead of nine (`top left` … `center`).
    """
    if fine:
        return f"{ROWS5[int(y * 5)]}, {COLUMNS5[int(x * 5)]}"
    row, column = int(y * 3), int(x * 3)
    if (row, column) == (1, 1):
        return "center"
    if row == 1:
        return COLUMNS3[column]
    return ROWS3[row] if column == 1 else f"{ROWS3[row]} {COLUMNS3[column]}"


def box_centre(thing: ObjectTruth, image_size: int) -> tuple[float, float]:
    """Centre of the box as shares of the image, (x, y)."""
    x1, y1, x2, y2 = thing.box
    return (x1 + x2) / 2 / image_size, (y1 + y2) / 2 / image_size


def name(colour: str, kind: str) -> str:
    """`a red mug`, `an orange ball`."""
    return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {kind}"


def pretrain_rows(
    scene: SceneTruth, rng: np.random.Generator, *, num_rows: int = 1, turns_per_row: int = 6
) -> list[Row]:
    """Conversations about one scene, in OSD's schema.

    A sixth of the rows is one caption that lists every region; the others are single questions of which none gives
    another's answer away.

    Args:
        scene: With at least one object.
        rng: Chooses questions, phrasings and order.
        num_rows: How many conversations; their ids are the scene's with `-0`, `-1`, … appended.
        turns_per_row: Questions a conversation (fewer when the scene has no more to ask).

    Raises:
        ValueError: The scene shows no object.
    """
    if not scene.objects:
        raise ValueError(f"scene {scene.id} shows no object; expected at least one")
    rows = []
    for number in range(num_rows):
        turns = [_caption(scene, rng)] if rng.random() < 1 / 6 else _single_questions(scene, rng, turns_per_row)
        rows.append(make_row(scene, turns, id=f"{scene.id}-{number}"))
    return rows


def _name(thing: ObjectTruth) -> str:
    return name(thing.colour, thing.kind)


def _place(scene: SceneTruth, index: int, *, fine: bool) -> str:
    return place_words(*box_centre(scene.objects[index], scene.image_size), fine=fine)


def _caption(scene: SceneTruth, rng: np.random.Generator) -> Turn:
    order = tuple(int(i) for i in rng.permutation(len(scene.objects)))
    masks = ", ".join([MASK] * len(order))
    question = str(rng.choice((f"Describe {masks}.", f"What are {masks}?")))
    parts = []
    for local, index in enumerate(order):
        thing = scene.objects[index]
        parts.append(f"Region [{local}] is {_name(thing)} at the {_place(scene, index, fine=False)}.")
    return question, " ".join(parts), order


def _single_questions(scene: SceneTruth, rng: np.random.Generator, wanted: int) -> list[Turn]:
    """Questions about random regions; each takes facts (`kind`, `colour`, `place` of a region) that no other uses."""
    candidates = [(maker, facts, i) for maker, facts in _MAKERS for i in range(len(scene.objects))]
    taken: set[tuple[str, int]] = set()
    turns: list[Turn] = []
    ask_count = rng.random() < 0.25
    for position in rng.permutation(len(candidates)):
        if len(turns) == wanted - ask_count:
            break
        maker, facts, index = candidates[int(position)]
        needs = {(fact, index) for fact in facts}
        turn = None if needs & taken else maker(scene, index, rng)
        if turn is not None:
            turns.append(turn)
            taken |= needs
    if ask_count:
        marked = len({region for _, _, regions in turns for region in regions})
        answer = f"{marked} region{'' if marked == 1 else 's'}."
        turns.insert(int(rng.integers(len(turns) + 1)), ("How many regions are marked?", answer, ()))
    return turns


def _what(scene: SceneTruth, index: int, rng: np.random.Generator) -> Turn:
    question = str(rng.choice((f"What is {MASK}?", f"Name {MASK}.")))
    return question, f"{_name(scene.objects[index]).capitalize()}.", (index,)


def _kind(scene: SceneTruth, index: int, rng: np.random.Generator) -> Turn:
    question = str(rng.choice((f"What kind of object is {MASK}?", f"Which object is {MASK}?")))
    return question, f"{scene.objects[index].kind.capitalize()}.", (index,)


def _colour(scene: SceneTruth, index: int, rng: np.random.Generator) -> Turn:
    question = str(rng.choice((f"What color is {MASK}?", f"Which color does {MASK} have?")))
    return question, f"{scene.objects[index].colour.capitalize()}.", (index,)


def _coarse(scene: SceneTruth, index: int, rng: np.random.Generator) -> Turn:
    question = str(rng.choice((f"Where is {MASK}?", f"Where in the image is {MASK}?")))
    return question, f"Region [0] is at the {_place(scene, index, fine=False)}.", (index,)


def _fine(scene: SceneTruth, index: int, rng: np.random.Generator) -> Turn:
    question = f"Where exactly is {MASK}?"
    return question, f"Region [0] is at the {_place(scene, index, fine=True)}.", (index,)


def _coordinates(scene: SceneTruth, index: int, rng: np.random.Generator) -> Turn:
    """Percent of the image's width and height, rounded down."""
    x, y = box_centre(scene.objects[index], scene.image_size)
    return f"Give the coordinates of {MASK}.", f"Region [0] is at ({int(100 * x)}, {int(100 * y)}).", (index,)


def _which(scene: SceneTruth, index: int, rng: np.random.Generator) -> Turn | None:
    """Which of these is the red mug: asked only when it is the only red mug, and not the only region."""
    thing = scene.objects[index]
    same = [o for o in scene.objects if (o.kind, o.colour) == (thing.kind, thing.colour)]
    if len(same) > 1 or len(scene.objects) < 2:
        return None
    order = tuple(int(i) for i in rng.permutation(len(scene.objects)))
    masks = ", ".join([MASK] * len(order))
    return f"Which of {masks} is the {thing.colour} {thing.kind}?", f"Region [{order.index(index)}].", order


def _is_kind(scene: SceneTruth, index: int, rng: np.random.Generator) -> Turn:
    thing = scene.objects[index]
    asked = thing.kind
    if rng.random() < 0.5:
        asked = str(rng.choice([kind for kind in KINDS if kind != thing.kind]))
    return f"Is {MASK} a {asked}?", "Yes." if asked == thing.kind else f"No, it is a {thing.kind}.", (index,)


def _is_colour(scene: SceneTruth, index: int, rng: np.random.Generator) -> Turn:
    thing = scene.objects[index]
    asked = thing.colour
    if rng.random() < 0.5:
        asked = str(rng.choice([colour for colour in COLOURS if colour != thing.colour]))
    return f"Is {MASK} {asked}?", "Yes." if asked == thing.colour else f"No, it is {thing.colour}.", (index,)


_MAKERS: tuple[tuple[Callable[[SceneTruth, int, np.random.Generator], Turn | None], tuple[str, ...]], ...] = (
    (_what, ("kind", "colour")),
    (_kind, ("kind",)),
    (_colour, ("colour",)),
    (_coarse, ("place",)),
    (_fine, ("place",)),
    (_coordinates, ("place",)),
    (_which, ("kind", "colour")),
    (_is_kind, ("kind",)),
    (_is_colour, ("colour",)),
)
"""How each question is made, and which facts about its region it gives away."""
