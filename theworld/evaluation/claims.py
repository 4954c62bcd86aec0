"""What of a sentence its speaker stands by: not what is hedged, conceded, imagined, asked or denied."""

from __future__ import annotations

import re

IGNORANCE = re.compile(
    r"\b(?:unknown|unclear|uncertain|impossible|unable|undetermined|indeterminate|ambiguous|insufficient|unsure|inconclusive)\b"
    r"|\b(?:can\s?not|can't|can\s+t|don'?t|don\s+t|do\s+not|could\s?n.t|could\s+not)"
    r"\s+(?:\w+ly\s+)?(?:be\s+)?(?:say|tell|know|determined?|certain|sure|see|answer(?:ed)?|judged?|estimated?|measured?|provided?|infer(?:red)?)\b"
    r"|\bnot\s+(?:specified|certain|sure|clear|possible|provided|enough|visible|known|given)\b"
    r"|\b(?:difficult|hard)\s+to\b|\bmore\s+information\b|\bno\s+(?:way\s+(?:to|of)|information|answer)\b|\bdepends\s+on\b"
)
"""A sentence that owns up to not knowing."""

_REQUEST = re.compile(r"\W*(?:please|let's|let\s+us|imagine|consider)\b")
_TURN = re.compile(
    r";|,?\s*\b(?:but|however|yet|though|although|nevertheless|nonetheless)\b,?|\s-\s|^\W*(?:while|even\s+though|whilst)\b"
)
_TURNS = ("but", ";", "however", "yet", "though", "nevertheless", "nonetheless", " - ", "while", "whilst")
_SUBORDINATE = re.compile(r"^\W*(?:while|although|though|even\s+though|whilst)\b[^,]*,")

_MEASURE = re.compile(r"\b(?:width|height|depth|size|length|distance)s?\s+(?:is|are|remains?)\b")
_PRONOUN = re.compile(r"\W*(?:it|they)\b")
_POSSIBLE = re.compile(r"\b(?:possible|conceivable)\s+that\b")

CONTRASTS = ("but ", ";", "however", "yet ")
"""Words without which a text concedes nothing."""
_CONTRAST = re.compile(r";|\b(?:(?<!anything\s)but|however|yet)\b,?")
_CONCEDED = re.compile(
    r"\bat\s+first\b(?!\s+region)|\bfirst\s+(?:glance|sight|impression|guess|thought)\b|\b(?:initially|originally)\b"
    r"|\bi\s+(?:\w+\s+)?thought\b|\bi\s+would\s+have\s+\w+"
    r"|\b(?:one|you|some|people|we)\s+(?:might|may|could|would)\s+(?:\w+\s+)?(?:think|say|assume|expect|guess|believe)\b"
    r"|\b(?:may|might|could|would)\s+(?:\w+\s+)?(?:seem|appear|look)\b"
)
_APPEARANCE = re.compile(r"\b(?:seems?|looks?|appears?|may|might|could|thought)\b")
_REALITY = re.compile(r"\b(?:actually|really|in\s+(?:reality|truth|actuality)|illusion)\b")
_CONCESSIONS = 8
"""As many are left out; a model that repeats itself makes thousands."""
_OPENS_CONTRAST = re.compile(r"\W*(?:but|however|yet)\b")

_CONDITION = re.compile(r"\W*(?:if|suppose|assuming|unless)\b")
_OF_SPEECH = re.compile(
    r"\W*if\s+(?:i\s+(?:had|have|were|must|am)\b|i'm\s|(?:you\s+(?:are\s+)?)?(?:mean|ask|want)|forced|pressed|asked)[^,]*,"
)
_BUT = re.compile(r"[,;]\s*(?:but|however|yet)\b")
_PART = re.compile(r"([,;])")
_IF = re.compile(r"\b(?:(?:even|only)\s+)?(?:if|whether)\b.*", re.DOTALL)
_WOULD = re.compile(r"\bwould\b(?!\s+(?:have\s+to\s+)?(?:say|guess|estimate|lean|go|call|put)\b)")
_WERE = re.compile(r"\b(?:were|had)\b")
_IF_I = re.compile(r"if\s+i\b")

_DENIALS = ("not", "n't", "n t ", "never", "nor ", "neither", "anything but", "rather than", "instead of", "no way")
_DENIED = re.compile(
    r"(?:\b(?:not|never|nor|neither|cannot|no\s+way|anything\s+but|rather\s+than|instead\s+of)|n['\s]t)\s+"
    r"(?:(?:at|in|to|by|be|been|being|it|it's|is|that|this|the|an?|say|think|believe|seem|appear|look|like|measure|stand|lie"
    r"|from|between|about|around|roughly|approximately|actually|really|near|towards?|answer|distance|height|width|direction"
    r"|clock|position|of|its|<\d+>|and|located|placed)\s+|[~(]\s*)*$"
)


def claimed(sentence: str) -> str:
    """What the sentence claims beside owning up to not knowing ("I can't be sure, *but it is on the left*").

    Returns:
        The sentence itself where it neither hedges nor asks for something; nothing where that is all that it does.
    """
    if not IGNORANCE.search(sentence):
        return "" if _REQUEST.match(sentence) else sentence
    if not _may_turn(sentence):
        return ""
    if subordinate := _SUBORDINATE.match(sentence):
        parts = [subordinate[0], sentence[subordinate.end() :]]
    else:
        parts = _TURN.split(sentence)
    unknown = [part for part in parts if IGNORANCE.search(part)]
    # "Its width is unknown, but it is smaller": what "it" is cannot be decided.
    of_measure = any(map(_MEASURE.search, unknown))
    return "; ".join(
        part
        for part in parts
        if part.strip()
        and part not in unknown
        and not (_REQUEST.match(part) or _POSSIBLE.search(part) or (of_measure and _PRONOUN.match(part)))
    )


def is_appearance(clause: str) -> bool:
    """Whether the clause tells what seems to be, which gives way to what the same sentence says is."""
    return _APPEARANCE.search(clause) is not None


def without_concession(sentence: str) -> str:
    """The sentence without what it concedes first: "I thought so, *but it is on the left*"."""
    for _ in range(_CONCESSIONS):
        contrast = _CONTRAST.search(sentence)
        if contrast is None:
            break
        before, after = sentence[: contrast.start()], sentence[contrast.end() :]
        if not _is_conceded(before, contrast[0], after) or not after.strip():
            break
        sentence = after
    return sentence


def takes_back(sentence: str, earlier: str) -> bool:
    """Whether the sentence contrasts with an earlier one that was a mere first thought."""
    return _OPENS_CONTRAST.match(sentence) is not None and _CONCEDED.search(earlier) is not None


def without_condition(sentence: str, *, consequents: bool) -> str:
    """The sentence without conditions, what is said under one, and what is only asked ("whether …").

    Args:
        sentence: Cleaned text.
        consequents: Keep what follows the condition ("if you are there, *it is at 3*"), which still states a quantity.
    """
    if _CONDITION.match(sentence):
        if consequents:
            return sentence.partition(",")[2]
        if speech := _OF_SPEECH.match(sentence):
            return sentence[speech.end() :]
        but = _BUT.search(sentence)
        return sentence[but.end() :] if but else ""
    if consequents:
        return sentence
    parts = _PART.split(sentence)
    return "".join(_IF.sub("", part) for part in parts if not _is_imagined(part))


def is_denied(sentence: str, start: int) -> bool:
    """Whether the quantity that begins at `start` is said not to be: "it is not *2 m*", but not "not over *2 m*"."""
    for word in _DENIALS:
        if word in sentence:
            return _DENIED.search(sentence, max(0, start - 80), start) is not None
    return False


def _may_turn(sentence: str) -> bool:
    for word in _TURNS:  # noqa: SIM110 (`any` costs twice as much)
        if word in sentence:
            return True
    return False


def _is_conceded(before: str, contrast: str, after: str) -> bool:
    if ";" not in contrast and _CONCEDED.search(before):
        return True
    is_set_right = _REALITY.search(after) is not None and not IGNORANCE.search(after)
    return is_set_right and is_appearance(before)


def _is_imagined(part: str) -> bool:
    """Whether a condition makes the part a mere thought: "it would be if …", "if it were …"."""
    condition = _IF.search(part)
    if condition is None:
        return False
    is_subjunctive = _WERE.search(part, condition.start()) and not _IF_I.match(part, condition.start())
    return bool(is_subjunctive or _WOULD.search(part))
