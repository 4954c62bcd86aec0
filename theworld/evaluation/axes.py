"""The six axes that the twelve relations are the ends of, and the words for each end.

`tall` and `short` are the two ends of height, so "Region [1] is shorter" says of Region [0] that it is taller.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from itertools import islice, pairwise

from theworld.evaluation.sentences import REGION, contains_any

_MORE = r"greater|larger|bigger|more|exceed\w*|surpass\w*|outmeasur\w*"
_LESS = r"lesser|less|smaller|falls?\s+short|fall\s+short"
_NEGATIONS = ("no", "n't", "n t", "never", "neither", "hardly")
_NEGATION = re.compile(
    r"\b(?:not(?!\s+(?:only|just|merely)\b)|never|neither|nor|hardly|cannot|no(?=\s+\w)(?!\s+(?:doubt|question|wonder)))\b"
    r"|n['\s]t\b"
)
_DENIAL_WORDS = (
    *("false", "incorrect", "inaccurate", "untrue", "wrong", "mistaken", "disagree", "doubt", "deny", "anything but"),
    *("fail", "far from", "rarely", "seldom", "nothing"),
)
_DENIAL = re.compile(
    r"\b(?:false|incorrect|inaccurate|untrue|mistaken|wrong(?!\s+(?:side|way|place|end))|doubtful"
    r"|i\s+(?:\S+\s+)?(?:disagree|doubt|deny)|anything\s+but|fail(?:s|ed)?\s+to|far\s+from\s+(?:being|it|true|correct)"
    r"|rarely|seldom|nothing\s+(?:suggests|indicates|shows|implies))\b"
)
"""Denies what it is said of, and what denies it in turn affirms that: "I don't doubt it"."""
_STANDARD = re.compile(
    r"\b(?:(?:compared|relative|next|contrast|comparison)\s+(?:to|with)|than|versus|vs\.?|not|instead\s+of|rather\s+than"
    r"|(?:left|right|front|side|on\s+top)\s+of|above|below|behind|beneath|under(?:neath)?|over"
    r"|(?:occluded|hidden|blocked|obscured|covered)\s+by)\s+(?:(?:that|the\s+\w+)\s+of\s+)?$"
)
_LAST_OF_STANDARD = frozenset(
    ("to", "with", "than", "versus", "vs", "vs.", "not", "of", "by", "above", "below", "behind", "beneath", "under")
    + ("underneath", "over")
)
_NO_PLACE = r"(?!\s+(?:up|down|in\s+the|on\s+the)\b)"
_ENDS = 8
"""As many words of an axis are looked at in a clause; a model that repeats itself makes thousands."""
_OR = re.compile(r"(?:\s+(?:of|than))?(?:\s+(?:<\d+>|the\s+other))?\s*,?\s*or\s+(?:\w+\s+){0,3}")


@dataclass(frozen=True)
class _Words:
    """The words of an axis.

    Attributes:
        positive: The comparatives of its positive end.
        negative: Those of its negative end.
        noun: What lends "more" and "less" a meaning.
        adjectives: Plain adjectives of the two ends, for "less tall", "not as tall as", "twice as tall".
    """

    positive: str
    negative: str
    noun: str = ""
    adjectives: tuple[str, str] = ("", "")


_AXES: dict[tuple[str, str], _Words] = {
    ("above", "below"): _Words(
        r"above|over|higher|highest|on\s+top|atop|upper(?:most)?|top(?:most)?(?!\s+of\s+<)|more\s+elevated",
        r"below|under|underneath|beneath|lower(?:most)?|lowest|bottom(?:most)?(?!\s+of\s+<)",
        adjectives=("high", "low"),
    ),
    ("left", "right"): _Words(
        r"left(?:most)?",
        r"right(?:most)?(?!\s+(?:next|beside|above|below|behind|under|over|at|in|there|now|away)\b)",
    ),
    ("behind", "front"): _Words(
        r"behind|further|farther|furthest|farthest|(?:more|most)\s+distant|background|deeper|(?:at|in|to)\s+the\s+(?:back|rear)"
        r"|(?:occluded|hidden|blocked|obscured|covered)\s+by",
        r"in\s+front|before|closer|closest|nearer|nearest|(?:less|least)\s+distant|foreground|ahead|occludes|hides|obscures",
        adjectives=("far|distant|deep", "close|near"),
    ),
    ("big", "small"): _Words(
        r"bigger|biggest|larger|largest|greater|bulkier|more\s+massive",
        r"smaller|smallest|tinier|littler|lesser|more\s+compact",
        noun=r"size|space|volume|room|area",
        adjectives=("big|large|massive", "small|tiny|little"),
    ),
    ("tall", "short"): _Words(
        rf"taller|tallest|higher{_NO_PLACE}|highest",
        rf"shorter|shortest|lower{_NO_PLACE}|lowest",
        noun=r"heights?|stature|tallness",
        adjectives=("tall|high", "short|low"),
    ),
    ("wide", "thin"): _Words(
        r"wider|widest|broader|broadest|thicker|thickest",
        r"thinner|thinnest|narrower|narrowest|slimmer|slimmest|skinnier|slenderer",
        noun=r"widths?|breadth",
        adjectives=("wide|broad|thick", "thin|narrow|slim|slender"),
    ),
}

_SIZES = re.compile("|".join(rf"\b(?:{_AXES[ends].positive}|{_AXES[ends].negative})\b" for ends in list(_AXES)[-3:]))


@dataclass(frozen=True)
class _Adjectives:
    """Adjectives of one end, in the phrases in which they compare."""

    less: re.Pattern[str]
    more: re.Pattern[str]


class Axis:
    """The axis of one relation: what a clause says about it.

    Args:
        relation: One of the twelve, e.g. `tall`.
    """

    def __init__(self, relation: str) -> None:
        ends, words = next((ends, words) for ends, words in _AXES.items() if relation in ends)
        self.is_positive = relation == ends[0]
        self._nouns = tuple(noun.removesuffix("s?") for noun in words.noun.split("|")) if words.noun else ()
        self._noun = re.compile(rf"\b(?:{words.noun})\b")
        # "A lesser width" says nothing of size, nor "a greater size" of height.
        others = "|".join(other.noun for other in _AXES.values() if other.noun and other is not words)
        unless = rf"(?!\s+(?:in\s+)?(?:{others})\b)"
        self._plain = _either(words.positive, words.negative, unless)
        self._with_noun = _either(f"{words.positive}|{_MORE}", f"{words.negative}|{_LESS}", unless)
        self._adjectives = [_adjectives(adjectives) for adjectives in words.adjectives if adjectives]
        adjectives = "|".join(filter(None, words.adjectives))
        self._any_adjective = re.compile(rf"\b(?:as|so|less|more)\s+(?:{adjectives})\b")
        either = "|".join(filter(None, (words.positive, words.negative, _MORE, _LESS, adjectives)))
        self._touches = re.compile(rf"\b(?:{either})\b")

    def touches(self, sentence: str) -> bool:
        """Whether any word of the axis occurs; without one, the sentence says nothing of it."""
        return self._touches.search(sentence) is not None

    def names(self, sentence: str) -> bool:
        """Whether the sentence names the axis itself, which lends "more" and "less" a meaning."""
        return contains_any(sentence, self._nouns) and self._noun.search(sentence) is not None

    def is_open(self, sentence: str) -> bool:
        """Whether the sentence offers both ends: "to the left or to the right"."""
        if " or " not in sentence:
            return False
        ends = list(self._plain.finditer(sentence))
        return any(
            (first["positive"] is None) != (second["positive"] is None)
            and _OR.fullmatch(sentence, first.end(), second.start())
            for first, second in pairwise(ends)
        )

    def ends_of(self, clause: str, *, named: bool) -> list[tuple[re.Match[str], bool]]:
        """The words of the axis in the clause, and whether they say that the relation holds for their subject."""
        if self._adjectives and self._any_adjective.search(clause):
            for adjectives, positive in zip(self._adjectives, (True, False), strict=True):
                if match := adjectives.less.search(clause):
                    return [(match, positive != self.is_positive)]
                if match := adjectives.more.search(clause):
                    return [(match, (positive == self.is_positive) != is_negated(clause))]
        matches = list(islice((self._with_noun if named else self._plain).finditer(clause), _ENDS))
        if not matches:
            return []
        negated = is_negated(clause)
        return [(match, ((match["positive"] is not None) == self.is_positive) != negated) for match in matches]


@cache
def axis_of(relation: str) -> Axis:
    """The axis of a relation, made once."""
    return Axis(relation)


def is_relation(name: str) -> bool:
    """Whether `name` (`above`, `thin`, …) is one of the twelve relations."""
    return any(name in ends for ends in _AXES)


def is_negated(clause: str) -> bool:
    """Whether the clause denies what it says."""
    negated = contains_any(clause, _NEGATIONS) and _NEGATION.search(clause) is not None
    return negated != (contains_any(clause, _DENIAL_WORDS) and _DENIAL.search(clause) is not None)


def compares_sizes(text: str) -> bool:
    """Whether the text compares sizes, heights or widths."""
    return _SIZES.search(text) is not None


def mentions(text: str) -> list[re.Match[str]]:
    """Mentions of regions that are not merely what another one is compared with."""
    return [region for region in REGION.finditer(text) if not _is_standard(text, region.start())]


def _is_standard(text: str, start: int) -> bool:
    """Whether what begins at `start` is what something else is compared with."""
    before = text[max(0, start - 48) : start]
    # The last word tells nearly always that it is not, at a fraction of the pattern's cost.
    words = before.rsplit(None, 1)
    return bool(words) and words[-1] in _LAST_OF_STANDARD and _STANDARD.search(before) is not None


def _either(positive: str, negative: str, unless: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:(?P<negative>{negative})|(?P<positive>{positive}))\b{unless}")


def _adjectives(words: str) -> _Adjectives:
    return _Adjectives(
        less=re.compile(
            r"(?:(?:\bnot|n't)\s+(?:(?:look|seem|appear|stand|be|nearly|quite)\s+)*|\bnowhere\s+near\s+)"
            rf"(?:as|so)\s+(?:{words})\b|\bless\s+(?:{words})\b"
            rf"|\bhalf\s+as\s+(?:{words})\b"
        ),
        more=re.compile(
            rf"\bmore\s+(?:{words})\b|\b(?:twice|double|triple|thrice|times|percent|%)\s+as\s+(?:{words})\b"
        ),
    )
