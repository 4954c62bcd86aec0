"""What a length in a sentence is said of: a dimension, the regions asked for or others, the camera, a yardstick."""

from __future__ import annotations

import re

from theworld.evaluation.sentences import REGION

_DIMENSION_WORDS = {
    "vertical": (
        "height",
        "heights",
        "tall",
        "taller",
        "high",
        "higher",
        "vertical",
        "vertically",
        "above",
        "below",
        "h",
    ),
    "horizontal": ("width", "widths", "wide", "wider", "horizontal", "horizontally", "radius", "breadth", "broad", "w")
    + ("sideways", "lateral", "laterally"),
    "direct": ("direct", "directly", "straight", "diagonal", "diagonally", "euclidean"),
    "depth": ("depth", "deep", "thick", "thickness", "long", "length"),
}
_DIMENSION = {word: dimension for dimension, words in _DIMENSION_WORDS.items() for word in words}
_ANY_DIMENSION = re.compile(rf"\b(?:{'|'.join(_DIMENSION)})\b")
_APART = re.compile(r"\b(?:away|apart|distances?|distant|separat\w+|gap)\b")
_ASKED_DIMENSION = {
    "height_data": "vertical",
    "vertical_distance_data": "vertical",
    "width_data": "horizontal",
    "horizontal_distance_data": "horizontal",
    "distance_data": "direct",
}
_MODIFIER_AFTER = re.compile(
    r"\s*(?:\([^)]*\d[^)]*\)\s*)?[(,]?\s*(?:in\s+(?:terms\s+of\s+|total\s+)?|of\s+)?(?:the\s+)?(?:its\s+)?([a-z]+)"
)
_ASIDE = re.compile(r"[,;]|\b(?:and|but|while|whereas)\b")
_BETWEEN = re.compile(r"\b(?:between|apart|each\s+other|one\s+another)\b")
_VIEWER = re.compile(r"\b(?:camera|viewer|observer|photographer|lens)\b(?!'s|\s+(?:perspective|view|angle))")
_REFERENCE = re.compile(r"\b(?:typical(?:ly)?|standard|usual(?:ly)?|assum\w+|average|for\s+reference|scale)\b")
_OPERATOR_AFTER = re.compile(r"\s*(?:[+*/=]|x\b)")
_OPERATOR_BEFORE = re.compile(r"(?:[+*/]|\bx)\s*$")


def penalty(before: str, after: str, *, category: str, wanted: set[int]) -> int:
    """0 for a length that is said of what was asked, more the surer it is said of something else.

    Args:
        before: What stands before the length, from the length before it or the beginning of the sentence.
        after: What stands behind it, up to the next length or the end.
        category: SpatialRGPT category, e.g. `height_data`.
        wanted: Regions that the question names.
    """
    after = _ASIDE.split(after, maxsplit=1)[0]
    is_distance = "distance" in category
    found = _of_dimension(before, after, _ASKED_DIMENSION.get(category, ""), is_distance)
    mentioned = {int(region) for region in REGION.findall(before + after)}
    if wanted and not mentioned & wanted and not (is_distance and _BETWEEN.search(before + after)):
        found += 2 if mentioned else 1
    if _VIEWER.search(before + after):
        found += 4
    if _REFERENCE.search(before):
        found += 2
    if _OPERATOR_AFTER.match(after) or _OPERATOR_BEFORE.search(before):
        found += 2
    return found


def before_next(text: str) -> str:
    """What of the words between two lengths may be said of the second one."""
    aside = _ASIDE.search(text)
    if aside:
        return text[aside.start() :]
    modifier = _MODIFIER_AFTER.match(text)
    return text[modifier.end() :] if modifier and modifier[1] in _DIMENSION else text


def _of_dimension(before: str, after: str, dimension: str, is_distance: bool) -> int:
    said = _said(before, after)
    if not dimension or said is None or said == dimension:
        return 0
    if said == "apart" and is_distance:
        return 0 if dimension == "direct" else 2
    return 4


def _said(before: str, after: str) -> str | None:
    """The dimension that the words around a length name: right after it, else last before it, else later on."""
    modifier = _MODIFIER_AFTER.match(after)
    if modifier and modifier[1] in _DIMENSION:
        return _DIMENSION[modifier[1]]
    words = _ANY_DIMENSION.findall(before)[-1:] or _ANY_DIMENSION.findall(after)[:1]
    if words:
        return _DIMENSION[words[0]]
    return "apart" if _APART.search(after) or _APART.search(before) else None
