"""Questions about visible regions, in the 24 categories of SpatialRGPT-Bench, with answers from the exact truth.

What the words mean is defined in `theworld.data.synthetic.relations`. Regions are named by `<mask> <depth>` in
a question and by their turn-local `Region [k]` in its answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from theworld.data.synthetic.relations import (
    MARGINS,
    RELATIONS,
    Relation,
    clock_degrees,
    clock_hour,
    differ,
    holds,
    length,
)
from theworld.data.synthetic.truth import SceneTruth

MASK = "<mask> <depth>"

CHOICE_WORDS = ("above", "below", "left", "right", "tall", "short")
QUALITATIVE = tuple(f"{w}_predicate" for w in RELATIONS) + tuple(f"{w}_choice" for w in CHOICE_WORDS)
QUANTITATIVE = (
    "distance_data",
    "vertical_distance_data",
    "horizontal_distance_data",
    "width_data",
    "height_data",
    "direction",
)
CATEGORIES = QUALITATIVE + QUANTITATIVE
"""The 24 categories."""

_PREDICATE = ("Is {a} {phrase} {b}?", "Would you say {a} is {phrase} {b}?", "Is it true that {a} is {phrase} {b}?")
_CHOICE = ("Which is {word}, {a} or {b}?", "Between {a} and {b}, which is {word}?", "Of {a} and {b}, which is {word}?")
_QUANTITY: dict[str, tuple[tuple[str, ...], str]] = {
    "distance_data": (
        ("How far apart are {a} and {b}?", "What is the distance between {a} and {b}?"),
        "Region [0] and Region [1] are {value} apart.",
    ),
    "vertical_distance_data": (
        ("How far apart are {a} and {b} vertically?", "What is the vertical distance between {a} and {b}?"),
        "Region [0] and Region [1] are {value} apart vertically.",
    ),
    "horizontal_distance_data": (
        ("How far apart are {a} and {b} horizontally?", "What is the horizontal distance between {a} and {b}?"),
        "Region [0] and Region [1] are {value} apart horizontally.",
    ),
    "width_data": (("How wide is {a}?", "What is the width of {a}?"), "Region [0] is {value} wide."),
    "height_data": (("How tall is {a}?", "What is the height of {a}?"), "Region [0] is {value} tall."),
    "direction": (
        ("In which clock direction is {b} from {a}?", "Seen from {a}, at what o'clock is {b}?"),
        "Region [1] is at {value} o'clock from Region [0].",
    ),
}


@dataclass(frozen=True, kw_only=True)
class RegionQuestion:
    """One question and its answer; `regions` are indices into the scene's objects in order of mention."""

    category: str
    question: str
    answer: str
    regions: tuple[int, ...]

    @property
    def qa_type(self) -> str:
        """`qualitative` or `quantitative`, as SpatialRGPT-Bench has it."""
        return "quantitative" if self.category in QUANTITATIVE else "qualitative"

    @property
    def fact(self) -> tuple[str, frozenset[int]]:
        """What the answer gives away: two questions with one fact do not belong in one conversation."""
        word = self.category.split("_")[0]
        return RELATIONS[word].measure if word in RELATIONS else self.category, frozenset(self.regions)


class QuestionDeck:
    """Chooses what to ask next, so that categories keep to their weights over many scenes.

    Args:
        weights: Category → how often it is asked relative to the others; `None` for all equally.
        balance_answers: Keep the answers of each category as even as possible (yes against no, first against
            second). Only for rows with one question: in a longer row an answer could be guessed from those before
            it. Without it every answer is an independent fair coin.

    Raises:
        ValueError: An unknown category, a negative weight, or no positive weight.
    """

    def __init__(self, weights: dict[str, float] | None = None, *, balance_answers: bool = False):
        self.weights = check_weights(weights)
        self.balance_answers = balance_answers
        self.asked: Counter[str] = Counter()
        self.lead: Counter[str] = Counter()

    def ask(
        self, scene: SceneTruth, rng: np.random.Generator, taken: Collection[tuple[str, frozenset[int]]] = ()
    ) -> RegionQuestion | None:
        """A question whose fact is not `taken`, of the category that lags most; None if the scene has none left."""
        names = list(self.weights)
        due = {name: (self.asked[name] + 1) / self.weights[name] + 1e-6 * rng.random() for name in names}
        for category in sorted(names, key=due.__getitem__):
            true_first = self._true_first(category, rng)
            question = ask(scene, category, rng, true_first=true_first, taken=taken)
            if question is not None:
                self.asked[category] += 1
                self.lead[category] += 1 if true_first else -1
                return question
        return None

    def _true_first(self, category: str, rng: np.random.Generator) -> bool:
        coin = bool(rng.random() < 0.5)
        if self.balance_answers and self.lead[category]:
            return self.lead[category] < 0
        return coin


def check_weights(weights: dict[str, float] | None) -> dict[str, float]:
    """The positive weights, checked."""
    if weights is None:
        return dict.fromkeys(CATEGORIES, 1.0)
    unknown = sorted(set(weights) - set(CATEGORIES))
    if unknown:
        raise ValueError(f"unknown question categories {unknown}; expected some of {list(CATEGORIES)}")
    if min(weights.values(), default=0.0) < 0 or sum(weights.values()) <= 0:
        raise ValueError(f"weights of question categories are {weights}; expected none negative and one positive")
    return {name: weight for name, weight in weights.items() if weight > 0}


def ask(
    scene: SceneTruth,
    category: str,
    rng: np.random.Generator,
    *,
    true_first: bool,
    taken: Collection[tuple[str, frozenset[int]]] = (),
) -> RegionQuestion | None:
    """A question of the category.

    Args:
        scene: What is asked about.
        category: One of `CATEGORIES`.
        rng: Chooses regions, phrasing and unit.
        true_first: Predicates: the answer is yes. Choices: the answer is the first region. Ignored otherwise.
        taken: Facts that may not be asked about again.

    Returns:
        None when no regions of the scene differ enough.
    """
    word = category.split("_")[0]
    count = len(scene.objects)
    if category in ("width_data", "height_data"):
        groups: list[tuple[int, ...]] = [(i,) for i in range(count)]
    else:
        groups = list(combinations(range(count), 2))
    for index in rng.permutation(len(groups)):
        regions = groups[int(index)]
        if word in RELATIONS:
            made = _relation(scene, category, RELATIONS[word], regions, rng, true_first)
        else:
            made = _quantity(scene, category, regions, rng)
        if made is not None and made.fact not in taken:
            return made
    return None


def _relation(
    scene: SceneTruth,
    category: str,
    relation: Relation,
    pair: tuple[int, ...],
    rng: np.random.Generator,
    true_first: bool,
) -> RegionQuestion | None:
    one, other = scene.objects[pair[0]], scene.objects[pair[1]]
    if not differ(one, other, relation.measure):
        return None
    word = category.split("_")[0]
    a, b = pair if holds(scene, word, pair[0], pair[1]) == true_first else pair[::-1]
    question, answer = relation_turn(relation, rng, choice=category.endswith("_choice"), true_first=true_first)
    return RegionQuestion(category=category, question=question, answer=answer, regions=(a, b))


def relation_turn(
    relation: Relation, rng: np.random.Generator, *, choice: bool, true_first: bool, a: str = MASK, b: str = MASK
) -> tuple[str, str]:
    """Question and answer about two regions, called `a` and `b` in the question and `Region [0]`, `Region [1]` after.

    Args:
        relation: What is asked.
        rng: Chooses the phrasing.
        choice: Which of the two it is, instead of whether it is so.
        true_first: The answer is yes, or the first one.
        a: Name of the first region.
        b: Name of the second region.
    """
    if choice:
        question = str(rng.choice(_CHOICE)).format(word=relation.comparative, a=a, b=b)
        return question, f"Region [{0 if true_first else 1}] is {relation.comparative}."
    question = str(rng.choice(_PREDICATE)).format(phrase=relation.phrase, a=a, b=b)
    start, phrase = ("Yes", relation.phrase) if true_first else ("No", relation.opposite)
    return question, f"{start}, Region [0] is {phrase} Region [1]."


def _quantity(
    scene: SceneTruth, category: str, regions: tuple[int, ...], rng: np.random.Generator
) -> RegionQuestion | None:
    order = regions if rng.random() < 0.5 else regions[::-1]
    first, last = scene.objects[order[0]], scene.objects[order[-1]]
    depth = (first.camera[2] + last.camera[2]) / 2
    if category == "direction":
        degrees = clock_degrees(first, last, scene.camera.yaw)
        gap = abs((degrees + 15) % 30 - 15)
        near = length("horizontal_distance_data", scene, order) < MARGINS["clock_distance"] * depth
        if near or 15 - gap < MARGINS["clock_degrees"]:
            return None
        value = str(clock_hour(degrees))
    else:
        metres = length(category, scene, order)
        if len(order) == 2 and metres < MARGINS["distance"] * depth:
            return None
        value = write_length(metres, rng)
    phrasings, pattern = _QUANTITY[category]
    question = str(rng.choice(phrasings)).format(a=MASK, b=MASK)
    if question.startswith("In which clock"):
        # This phrasing names the second region first; the answer's local numbers follow the order of mention.
        answer = f"Region [0] is at {value} o'clock from Region [1]."
        return RegionQuestion(category=category, question=question, answer=answer, regions=order[::-1])
    return RegionQuestion(category=category, question=question, answer=pattern.format(value=value), regions=order)


def write_length(metres: float, rng: np.random.Generator) -> str:
    """The length in a random unit, as OSD writes it; short ones mostly in inches or centimetres."""
    chances = (0.4, 0.4, 0.2, 0.0) if metres < 1 else (0.05, 0.05, 0.4, 0.5)
    unit = str(rng.choice(("inches", "centimeters", "feet", "meters"), p=chances))
    if unit == "inches":
        return f"{metres / 0.0254:.1f} inches"
    if unit == "centimeters":
        return f"{metres * 100:.1f} centimeters"
    return f"{metres / 0.3048:.2f} feet" if unit == "feet" else f"{metres:.2f} meters"
