"""Yes, no, and which one: what a free-text answer says about the relation that a question asks about.

Every relation is a direction along one axis (`tall` and `short` are the two ends of height), so "Region [1] is shorter"
answers "Is Region [0] taller than Region [1]?" as well as "Yes" does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from theworld.evaluation.sentences import REGION, clean, readings, regions, without_alternatives

_MORE = r"greater|larger|bigger|more|exceed\w*|surpass\w*|outmeasur\w*"
_LESS = r"lesser|less|smaller|falls?\s+short|fall\s+short"


@dataclass(frozen=True)
class _Axis:
    """The words of an axis: its positive end, its negative end, and the noun that lends "more" and "less" a meaning."""

    positive: str
    negative: str
    noun: str = ""
    adjectives: tuple[str, str] = ("", "")


_AXES: dict[tuple[str, str], _Axis] = {
    ("above", "below"): _Axis(
        r"above|over|higher|highest|on\s+top|atop|upper(?:most)?|top(?:most)?",
        r"below|under|underneath|beneath|lower(?:most)?|lowest|bottom(?:most)?",
        adjectives=("high", "low"),
    ),
    ("left", "right"): _Axis(
        r"left(?:most)?",
        r"right(?:most)?(?!\s+(?:next|beside|above|below|behind|under|over|at|in|there|now|away)\b)",
    ),
    ("behind", "front"): _Axis(
        r"behind|further|farther|furthest|farthest|(?:more|most)\s+distant|background|deeper",
        r"in\s+front|before|closer|closest|nearer|nearest|(?:less|least)\s+distant|foreground|ahead",
        adjectives=("far|distant", "close|near"),
    ),
    ("big", "small"): _Axis(
        r"bigger|biggest|larger|largest|greater",
        r"smaller|smallest|tinier|littler|lesser",
        noun=r"size|space|volume|room|area",
        adjectives=("big|large", "small"),
    ),
    ("tall", "short"): _Axis(
        r"taller|tallest|higher|highest",
        r"shorter|shortest|lower|lowest",
        noun=r"heights?|stature|tallness",
        adjectives=("tall|high", "short|low"),
    ),
    ("wide", "thin"): _Axis(
        r"wider|widest|broader|broadest",
        r"thinner|thinnest|narrower|narrowest|slimmer|slimmest",
        noun=r"widths?|breadth",
        adjectives=("wide|broad", "thin|narrow"),
    ),
}

_YES = r"yes|yeah|yep|yup|correct|indeed|true|right|affirmative|certainly|absolutely|definitely|of\s+course|sure"
_NO = (
    r"no|nope|nah|incorrect|false|wrong|untrue|negative|not\s+really|(?:not|isn't)\s+(?:true|correct|right|so)"
    r"|(?:absolutely|definitely|certainly|of\s+course)\s+not"
)
_LEAD = (
    r"(?:(?:so|then|well|oh|and|but|i\s+(?:would|'d)?\s*say|i\s+think|(?:that|this|it)(?:\s+is|'s)"
    r"|(?:the|this|that)\s+(?:statement|claim)\s+is)\s+)*"
)
_VERDICT = re.compile(
    rf"\W*{_LEAD}(?:(?P<no>{_NO})|(?P<yes>{_YES}))\b(?=\W*$|\s*[,:;(<-]|\s+(?:it|the|that|this|they)\b)"
)
_AUXILIARY = re.compile(
    r"\W*(?:it|that|this|they|<\d+>)\s+(?:is|does|are|do|has)(?P<no>\s+not|n't)?\W*", flags=re.IGNORECASE
)
_IGNORANCE = re.compile(
    r"\b(?:unknown|unclear|uncertain|impossible|unable|undetermined)\b|\b(?:can\s?not|can't|can\s+t|don'?t|don\s+t|do\s+not)"
    r"\s+(?:be\s+)?(?:say|tell|know|determined?|certain|sure|see)\b|\bnot\s+(?:specified|certain|sure|clear|possible|provided)\b"
    r"|\b(?:difficult|hard)\s+to\b|\bmore\s+information\b|\bno\s+way\s+(?:to|of)\b"
)
_REQUEST = re.compile(r"\W*(?:please|let's|let\s+us|imagine|consider)\b")
_NEGATION = re.compile(r"\b(?:not|never|neither|nor|no\s+longer|hardly)\b|n't\b|\bn\s?t\b")
_EQUAL = re.compile(r"\bsame\s+(?:height|width|size|level|distance|depth|position)\b|\bequal(?:ly)?\b")
_CLAUSE = re.compile(r",|;|:|\b(?:while|whereas|but|because|since|although|though)\b|\band\b(?=\s*(?:<|it\b))")
_STANDARD = re.compile(
    r"\b(?:compared\s+(?:to|with)|relative\s+to|than|versus|vs|not|instead\s+of)\s+(?:(?:that|the\s+\w+)\s+of\s+)?$"
)
_BY_ORDER = (re.compile(r"\bthe\s+(?:first|former)\b"), re.compile(r"\bthe\s+(?:second|latter)\b"))
_INVERTED = re.compile(r"\b(?:is|are|stands|sits|lies|appears|comes|would\s+be)\s+(?:the\s+)?<(\d+)>")
_PRONOUN = re.compile(r"\b(?:it|this|that\s+one|the\s+(?:first|former)(?:\s+(?:one|region))?)\b(?!\s+appears\s+that)")
_ELIDED = re.compile(
    r"\W*(?:(?:yes|no|is|are|it's|slightly|much|clearly|a\s+bit|positioned|located|more|to|on|at|the|not)\W+)*"
)


def parse_stance(text: str, *, category: str, question: str) -> str | None:
    """`"yes"` or `"no"` to a question that asks whether a relation holds; None where the answer takes no side.

    A verdict ("Yes", "Incorrect", "that is true") outranks what is said around it; a bare statement of the relation or
    of its opposite counts as a verdict. "Yes" and "No" listed as options cancel out.
    """
    relation = category.removesuffix("_predicate")
    asked = regions(clean(question))
    known = [_claims(reading) for reading in readings(clean(text))]
    declared = [_verdict(reading) or _stated(reading, relation, asked) for reading in known[:-2]]
    verdicts = [_verdict(reading) for reading in known[-2:]]
    stated = [_stated(reading, relation, asked) for reading in known[-2:]]
    return next((stance for stance in (*declared, *verdicts, *stated) if stance), None)


def parse_choice(text: str, *, category: str, question: str) -> int | None:
    """The number of the region that the answer names, if the question offers it; None where it names none."""
    relation = category.removesuffix("_choice")
    offered = regions(clean(question))
    cleaned = clean(text)
    if len(offered) == len(_BY_ORDER) and not REGION.search(cleaned):
        for pattern, region in zip(_BY_ORDER, offered, strict=True):
            cleaned = pattern.sub(f"<{region}>", cleaned)
    for reading in readings(cleaned):
        known = [without_alternatives(sentence) for sentence in _claims(reading)]
        chosen = _chosen(known, relation, offered)
        if chosen is not None:
            return chosen if chosen in offered else None
    return None


def is_relation(name: str) -> bool:
    """Whether `name` (`above`, `thin`, …) is one of the twelve relations."""
    return any(name in ends for ends in _AXES)


def _claims(sentences: list[str]) -> list[str]:
    """The sentences that neither confess ignorance nor ask for something."""
    return [sentence for sentence in sentences if not _IGNORANCE.search(sentence) and not _REQUEST.match(sentence)]


def _verdict(sentences: list[str]) -> str | None:
    """The first sentence that is, or begins or ends with, a yes or a no of its own."""
    bare: set[str] = set()
    first = None
    for sentence in sentences:
        phrases = [phrase for phrase in re.split(r",|:", sentence) if phrase.strip()]
        whole = _AUXILIARY.fullmatch(sentence)
        stance = _side(whole) if whole else None
        for number, phrase in enumerate(phrases):
            rest = _VERDICT.match(phrase if number else sentence)
            if rest and stance is None:
                stance = _side(rest)
                if len(phrases) == 1 and rest.end() >= len(sentence.rstrip(" -\"')")):
                    bare.add(stance)
        first = first or stance
    return None if bare == {"yes", "no"} else first


def _side(match: re.Match[str]) -> str:
    if "yes" in match.re.groupindex:
        return "yes" if match["yes"] else "no"
    return "no" if match["no"] else "yes"


def _stated(sentences: list[str], relation: str, asked: list[int]) -> str | None:
    """The stance of the first statement about the asked regions."""
    if not asked:
        return None
    for sentence in sentences:
        found = _statement(sentence, relation, asked[0])
        if found is not None and found[0] in asked:
            subject, holds = found
            return "yes" if holds == (subject == asked[0]) else "no"
        if _EQUAL.search(sentence) and set(regions(sentence)) >= set(asked):
            return "no"
    return None


def _chosen(sentences: list[str], relation: str, offered: list[int]) -> int | None:
    for sentence in sentences:
        found = _statement(sentence, relation, None)
        if found is not None and found[0] in offered:
            subject, holds = found
            others = [region for region in offered if region != subject]
            return subject if holds else (others[0] if len(others) == 1 else None)
    alone = {match[1] for sentence in sentences if (match := re.fullmatch(r"\W*(?:the\s+)?<(\d+)>\W*", sentence))}
    if len(alone) == 1:
        return int(alone.pop())
    if any(_EQUAL.search(sentence) or re.search(r"\b(?:both|neither)\b", sentence) for sentence in sentences):
        return None
    mentioned = {int(region[1]) for sentence in sentences for region in _subjects(sentence)}
    if len(mentioned) == 1:
        return mentioned.pop()
    number = re.fullmatch(r"\W*(\d+)\W*", " ".join(sentences))
    return int(number[1]) if number else None


def _statement(sentence: str, relation: str, default_subject: int | None) -> tuple[int, bool] | None:
    """Which region the sentence is about and whether it says that `relation` holds for it, against the other region."""
    ends, axis = next((ends, axis) for ends, axis in _AXES.items() if relation in ends)
    named = bool(axis.noun and re.search(rf"\b(?:{axis.noun})\b", sentence))
    for clause in _CLAUSE.split(sentence):
        found = _end_of(clause, axis, named)
        if found is None:
            continue
        match, positive, negated = found
        subject = _subject(clause, match, default_subject)
        if subject is not None:
            return subject, (positive == (relation == ends[0])) != negated
    return None


def _end_of(clause: str, axis: _Axis, named: bool) -> tuple[re.Match[str], bool, bool] | None:
    """The first word of the axis in the clause: where, whether its positive end, whether negated."""
    for adjectives, positive in zip(axis.adjectives, (True, False), strict=True):
        unequal = adjectives and re.search(
            rf"\b(?:not|n't)\s+(?:nearly\s+|quite\s+)?(?:as|so)\s+(?:{adjectives})\b", clause
        )
        if unequal:
            return unequal, not positive, False
    positive_words = f"{axis.positive}|{_MORE}" if named else axis.positive
    negative_words = f"{axis.negative}|{_LESS}" if named else axis.negative
    match = re.search(rf"\b(?:(?P<negative>{negative_words})|(?P<positive>{positive_words}))\b", clause)
    if match is None:
        return None
    return match, match["positive"] is not None, bool(_NEGATION.search(clause))


def _subjects(text: str) -> list[re.Match[str]]:
    """Mentions of regions that are not merely what another one is compared with."""
    return [region for region in REGION.finditer(text) if not _STANDARD.search(text[: region.start()])]


def _subject(clause: str, match: re.Match[str], default_subject: int | None) -> int | None:
    before = clause[: match.start()]
    named = _subjects(before)
    if named:
        return int(named[-1][1])
    inverted = _INVERTED.search(clause, match.end())
    if inverted:
        return int(inverted[1])
    if _PRONOUN.search(before) or _ELIDED.fullmatch(before):
        return default_subject
    return None
