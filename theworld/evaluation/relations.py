"""Yes, no, and which one: what a free-text answer says about the relation that a question asks about."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from theworld.evaluation.axes import axis_of, compares_sizes, is_relation, mentions
from theworld.evaluation.claims import claimed, is_appearance
from theworld.evaluation.sentences import REGION, Readings, contains_any, without_alternatives

__all__ = ["SAME", "is_relation", "parse_choice", "parse_stance"]

SAME = "both the same"
"""The answer to "which one" that names neither: never right, but an answer."""

_YES = (
    r"yes|yeah|yep|yup|y|correct|indeed|true|right|affirmative|certainly|absolutely|definitely|of\s+course|sure(?:ly)?"
)
_NO = (
    r"no|nope|nah|n|incorrect|false|wrong|untrue|negative|not\s+(?:really|at\s+all|quite)|by\s+no\s+means"
    r"|(?:not|isn't|wouldn't\s+be)\s+(?:true|correct|right|so|the\s+case)"
    r"|(?:(?:absolutely|definitely|certainly|of\s+course|probably|likely|surely|clearly|obviously)\s+)?not(?=\W*$)"
    r"|(?:absolutely|definitely|certainly|of\s+course|probably)\s+not|i\s+do(?:n't|\s+not)\s+(?:think|believe)\s+so"
)
_SO = r"(?:i\s+(?:think|believe|guess|suppose)|it\s+(?:seems|appears|looks))\s+so"
_LEAD = (
    r"(?:(?:so|then|well|oh|and|but|i\s*(?:would|'d)?\s*(?:have\s+to\s+)?say|a(?=\s)|i\s+think|by\s+all\s+means|(?:most\s+)?(?:likely|probably)"
    r"|i\s*(?:would|'d)?\s*lean\s+towards?|(?:that|this|it)(?:\s+(?:is|would\s+be)|'s|(?=\s+(?:isn't|wouldn't)))"
    r"|(?:the|this|that)\s+(?:statement|claim|answer)\s+is|option\s+[a-d]|[a-d1-9]\s*[).]|-)\s*)*"
)
_VERDICT = re.compile(
    rf"\W*{_LEAD}(?:(?P<no>{_NO})|(?P<yes>{_YES}|{_SO}))\b(?=\W*$|\s*[,:;(<]|\s*-\s|\s+(?:it|the|that(?:'s|\s+is)|this|they|i|and(?!\s+no\b))\b)"
)
_PROPOSITION = re.compile(
    rf"\W*{_LEAD}(?:(?P<no>{_NO})|(?:{_YES}))\s+(?:that|to\s+(?:say|claim|state|think))\b(?!'s|\s+is\b)"
)
_PROPOSITION_WORDS = (" that", " to ")
_FINAL = re.compile(r"\b(?:but|so)\s+(?:(?P<no>no)|yes)\W*$")
_AUXILIARY = re.compile(r"\W*(?:it|that|this|they|<\d+>)\s+(?:is|does|are|do|has)(?P<no>\s+not|n't)?\W*")
_WEAK = re.compile(r"\W*(?:indeed|certainly|absolutely|definitely|of\s+course|sure(?:ly)?|right)\b(?!\s+not\b)")
_EQUAL = re.compile(
    r"\bsame\s+(?:\w+\s+)?(?:height|width|size|level|distance|depth|position|plane)\b|\bequal(?:ly)?\b|\bidentical\b"
    r"|\b(?:(?:both|are|about|roughly)\s+(?:\w+\s+)?the|are\s+of\s+the)\s+same\b|\b(?:similar|comparable)\s+(?:in\s+)?(?:height|width|size)s?\b"
    r"|\bneither\s+(?:of\s+\w+\s+|one\s+|region\s+)?(?:is|stands|appears)\b|\bas\s+(?:tall|wide|big|large|high|thin|small|short|far|close)\s+as\b"
)
_EQUAL_WORDS = ("same", "equal", "identical", "similar", "comparable", "neither", "as ")
_NEITHER = re.compile(r"\W*(?:neither|both|none)\b")
_PHRASE = re.compile(r"[,:]")
_CLAUSE = re.compile(
    r",|;|:|\b(?:while|whereas|(?<!anything\s)but|because|since|although|though)\b|\band\b(?=\s*(?:<|it\b))"
)
_CLAUSE_WORDS = (" and <", " and it", "while", "whereas", "but", "because", "since", "though")
_CLAUSE_MARKS = (",", ";", ":")
_AT_MARKS = re.compile(r"[,;:]")
_BY_ORDER = (re.compile(r"\bthe\s+(?:first|former)\b"), re.compile(r"\bthe\s+(?:second|latter)\b"))
_INVERTED = re.compile(r"\b(?:is|are|stands|sits|lies|appears|comes|would\s+be)\s+(?:the\s+)?<(\d{1,9})>")
_PRONOUN = re.compile(r"\b(?:it|this|that\s+one|the\s+(?:first|former)(?:\s+(?:one|region))?)\b(?!\s+appears\s+that)")
_ELIDED = re.compile(
    r"\W*(?:(?:yes|no|is|are|it's|slightly|much|clearly|a\s+bit|positioned|located|more|to|on|at|the|not)\W+)*"
)
_ALONE = re.compile(r"\W*(?:the\s+)?<(\d{1,9})>\W*")
_DEGREE = re.compile(r"\b(?:further|farther|more)\s+(?:to\s+the\s+)?$")
_NUMBER = re.compile(r"\W*(\d{1,9})\W*")
_OPTION = re.compile(r"(?:^|\n)\W*([a-d])[).:]\s*<(\d{1,9})>")
_LETTER = re.compile(r"\W*([a-d])\W*")


def parse_stance(found: Readings, *, relation: str, asked: Sequence[int]) -> str | None:
    """`"yes"` or `"no"` to a question that asks whether a relation holds; None where the answer takes no side.

    A verdict ("Yes", "Incorrect", "that is true") outranks what is said around it; a bare statement of the relation or
    of its opposite counts as a verdict. "Yes" and "No" listed as options cancel out.

    Args:
        found: The answer's readings.
        relation: One of the twelve, e.g. `tall`.
        asked: Regions of the question; the first is the one of which the relation is asked.
    """
    for reading in found.declared:
        if stance := _verdict(reading) or _stated(reading, relation, asked):
            return stance
    concluded, everything = found.concluded, found.everything
    return (
        _verdict(concluded)
        or _verdict(everything)
        or _stated(concluded, relation, asked)
        or _stated(everything, relation, asked)
        or ("yes" if any(_WEAK.match(sentence) and claimed(sentence) for sentence in everything) else None)
        or _of_proposition(found)
    )


def parse_choice(found: Readings, *, relation: str, offered: Sequence[int]) -> int | str | None:
    """The number of the region that the answer names, if the question offers it; None where it names none.

    `SAME` where it says that both or neither are it.

    Args:
        found: The answer's readings.
        relation: One of the twelve, e.g. `tall`.
        offered: Regions of the question.
    """
    if len(found.everything) == 1 and (alone := _ALONE.fullmatch(found.everything[0])):
        return int(alone[1]) if int(alone[1]) in offered else None
    by_order = len(offered) == len(_BY_ORDER) and not REGION.search(found.text)
    options = dict(_OPTION.findall(found.text)) if found.declared else {}
    for reading in (*found.declared, found.concluded, found.everything):
        if not reading:
            continue
        if options and (letter := _LETTER.fullmatch(reading[0])) and letter[1] in options:
            return int(options[letter[1]])
        sentences = [_named_by_order(sentence, offered) for sentence in reading] if by_order else reading
        chosen = _chosen([without_alternatives(sentence) for sentence in sentences], relation, offered)
        if chosen is not None:
            return chosen if chosen == SAME or chosen in offered else None
    return None


def _of_proposition(found: Readings) -> str | None:
    """The verdict on a claim that says nothing of the relation: "it is true that it towers over the other"."""
    if not contains_any(found.text, _PROPOSITION_WORDS):
        return None
    return next(("no" if match["no"] else "yes" for match in map(_PROPOSITION.match, found.everything) if match), None)


def _verdict(sentences: list[str]) -> str | None:
    """The first sentence that is, or begins or ends with, a yes or a no of its own."""
    bare: set[str] = set()
    first = None
    for sentence in sentences:
        found = _verdict_in(sentence)
        if found is None:
            continue
        # "Yes, I cannot see why not" says yes; "No, I cannot tell" says nothing.
        if found != ("yes", False) and (claim := claimed(sentence)) != sentence and _verdict_in(claim) is None:
            continue
        stance, is_bare = found
        first = first or stance
        if is_bare:
            bare.add(stance)
    return None if len(bare) == 2 else first


def _verdict_in(sentence: str) -> tuple[str, bool] | None:
    """The stance of a sentence or of a phrase of it, and whether the sentence says nothing else.

    "Sure", "indeed" and their like may only open what is said next; they are read last, by `parse_stance`.
    """
    if ("but " in sentence or "so " in sentence) and (match := _FINAL.search(sentence)):
        return "no" if match["no"] else "yes", False
    match = None if _WEAK.match(sentence) else _VERDICT.match(sentence) or _AUXILIARY.fullmatch(sentence)
    if match:
        return "no" if match["no"] else "yes", match.end() >= len(sentence.rstrip(" -\"')"))
    if "," in sentence or ":" in sentence:
        for phrase in _PHRASE.split(sentence)[1:]:
            match = _VERDICT.match(phrase) or _AUXILIARY.fullmatch(phrase)
            if match and phrase.strip() and not _WEAK.match(phrase):
                return "no" if match["no"] else "yes", False
    return None


def _stated(sentences: list[str], relation: str, asked: Sequence[int]) -> str | None:
    """The stance of the first statement about the asked regions, one that compares the two before any other."""
    if not asked:
        return None
    loose = None
    for sentence in sentences:
        said = _claim(sentence, relation, asked, asked[0])
        if said is not None:
            stance = "yes" if said.holds == (said.subject == asked[0]) else "no"
            if said.is_exact:
                return stance
            loose = loose or stance
        elif loose is None and _says_equal(sentence) and claimed(sentence):
            return "no"
    return loose


def _chosen(sentences: list[str], relation: str, offered: Sequence[int]) -> int | str | None:
    loose: int | None = None
    for sentence in sentences:
        said = _claim(sentence, relation, offered, None)
        if said is None:
            continue
        others = [region for region in offered if region != said.subject]
        choice = said.subject if said.holds else (others[0] if len(others) == 1 else None)
        if said.is_exact or choice is None:
            return choice if loose is None or choice is not None else loose
        loose = choice if loose is None else loose
    return loose if loose is not None else _named(sentences)


def _named(sentences: list[str]) -> int | str | None:
    """The one region that is named, where nothing is said of the relation."""
    claims = [(claimed(sentence), sentence) for sentence in sentences]
    # Behind a hedge, "but it is wider" is another remark and no answer.
    sentences = [claim for claim, sentence in claims if claim and (claim == sentence or not compares_sizes(claim))]
    alone = {match[1] for sentence in sentences if (match := _ALONE.fullmatch(sentence))}
    if len(alone) == 1:
        return int(alone.pop())
    if any(_says_equal(sentence) or _NEITHER.match(sentence) for sentence in sentences):
        return SAME
    mentioned = {int(region[1]) for sentence in sentences for region in mentions(sentence)}
    if len(mentioned) == 1:
        return mentioned.pop()
    number = _NUMBER.fullmatch(" ".join(sentences))
    return int(number[1]) if number else None


def _clauses(sentence: str) -> list[str]:
    if contains_any(sentence, _CLAUSE_WORDS):
        return _CLAUSE.split(sentence)
    return _AT_MARKS.split(sentence) if contains_any(sentence, _CLAUSE_MARKS) else [sentence]


def _says_equal(sentence: str) -> bool:
    return contains_any(sentence, _EQUAL_WORDS) and _EQUAL.search(sentence) is not None


class _Statement(NamedTuple):
    """That the relation holds for `subject` or does not; `is_exact`: against the other region, or "further left"."""

    subject: int
    holds: bool
    is_exact: bool


def _claim(sentence: str, relation: str, asked: Sequence[int], default_subject: int | None) -> _Statement | None:
    """What the sentence claims about the relation of the asked regions, hedges left out."""
    said = _statement(sentence, relation, asked, default_subject)
    if said is None or (claim := claimed(sentence)) == sentence:
        return said
    return _statement(claim, relation, asked, default_subject)


def _statement(sentence: str, relation: str, asked: Sequence[int], default_subject: int | None) -> _Statement | None:
    axis = axis_of(relation)
    if not axis.touches(sentence) or axis.is_open(sentence):
        return None
    named = axis.names(sentence)
    found: list[tuple[str, _Statement]] = []
    for clause in _clauses(sentence):
        for match, holds in axis.ends_of(clause, named=named):
            subject = _subject(clause, match, default_subject)
            if subject is None or subject not in asked:
                continue
            other = REGION.search(clause, match.end())
            standard = int(other[1]) if other else subject
            if standard in asked:
                is_exact = standard != subject or _is_by_degree(clause, match.start())
                found.append((clause, _Statement(subject, holds, is_exact)))
    if len(found) < 2:
        return found[0][1] if found else None
    # What is sets aside what seems; then a comparison of the two sets aside one with anything else.
    return min(found, key=lambda said: (is_appearance(said[0]), not said[1].is_exact))[1]


def _is_by_degree(clause: str, start: int) -> bool:
    return ("more" in clause or "rther" in clause) and _DEGREE.search(clause, 0, start) is not None


def _subject(clause: str, match: re.Match[str], default_subject: int | None) -> int | None:
    before = clause[: match.start()]
    named = mentions(before)
    if named:
        return int(named[-1][1])
    inverted = _INVERTED.search(clause, match.end())
    if inverted:
        return int(inverted[1])
    if _PRONOUN.search(before) or _ELIDED.fullmatch(before):
        return default_subject
    return None


def _named_by_order(sentence: str, offered: Sequence[int]) -> str:
    for pattern, region in zip(_BY_ORDER, offered, strict=True):
        sentence = pattern.sub(f"<{region}>", sentence)
    return sentence
