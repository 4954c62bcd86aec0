"""Free text → statements: the first stage of every answer parser.

A model's answer may carry markdown, the role names of a decoded chat, an echo of the question, further questions and
conditionals. What is left here are the sentences that claim something, in lower case, with every region as `<n>`.
"""

from __future__ import annotations

import re
import unicodedata

REGION = re.compile(r"<(\d+)>")
"""A region in cleaned text."""

_QUOTES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u2032": "'", "\u201c": '"', "\u201d": '"', "\u2033": '"'})
_DASHES = re.compile(r"[\u2010-\u2015\u2212]")
_REGION_NAME = re.compile(r"\bregions?\s*(?:number\s*)?\[?(\d+)\]?(?!\.?\d)|\[(\d+)\]")
_USER_TURN = re.compile(r"(?:^|\n)[ \t]*user[ \t]*\n")
_MODEL_TURN = re.compile(r"model[ \t]*\n")
_ABBREVIATION = re.compile(r"(\d\s*(?:ft|in|yd|cm|mm|m))\.(?=\s*\d)")
_SENTENCE = re.compile(r"(?P<body>[^\n]*?)(?P<mark>[.!](?!\d)|\?(?!\w)|\n|$)")
_CONDITION = re.compile(r"^\W*(?:if|suppose|assuming|unless)\b")
_ANSWER = re.compile(r"\banswer\b\s*(?:is|:)\s*(?:that\b)?")
_CONCLUSION = re.compile(r"^\W*(?:therefore|thus|hence|so|consequently|in conclusion|overall|in summary)\b")
_ALTERNATIVES = re.compile(r"<(\d+)>\s*or\s*<(\d+)>|\b(?:between|among|of)\s+<\d+>\s*and\s*<\d+>")


def clean(text: str) -> str:
    """Lower case, plain quotes and dashes, no markdown, only the model's own first turn, regions as `<n>`."""
    text = re.sub(r"(?<=\d)(?=[\u00bc-\u00be])", " ", text)
    text = unicodedata.normalize("NFKC", text.translate(_QUOTES)).replace("\u2044", "/")
    text = _DASHES.sub("-", text).lower()
    text = re.sub(r"[*`#_]+", "", text)
    text = _REGION_NAME.sub(lambda match: f"<{match[1] or match[2]}>", text)
    text = _own_turn(text)
    return _ABBREVIATION.sub(r"\1", text)


def statements(text: str) -> list[str]:
    """The sentences of cleaned text that claim something: no questions, no conditionals, no empty ones."""
    found = []
    for match in _SENTENCE.finditer(text):
        body = match["body"].strip(" \t-")
        if body and match["mark"] != "?" and not _CONDITION.match(body):
            found.append(body)
    return found


def readings(text: str) -> list[list[str]]:
    """Statements in the order in which a reader would believe them; the last two are the conclusion and everything.

    Before them comes what follows each "the answer is", the last one first.
    """
    declared = [statements(text[match.end() :]) for match in reversed(list(_ANSWER.finditer(text)))]
    everything = statements(text)
    concluded = [sentence for sentence in everything if _CONCLUSION.match(sentence)]
    return [*declared, concluded, everything]


def without_alternatives(sentence: str) -> str:
    """The sentence without an echo such as `<0> or <1>`, which mentions regions and names none."""
    return _ALTERNATIVES.sub(" ", sentence)


def regions(text: str) -> list[int]:
    """Region numbers of cleaned text in order of first mention."""
    return list(dict.fromkeys(int(number) for number in REGION.findall(text)))


def _own_turn(text: str) -> str:
    """What the model said in its first turn; a chat decoded without special tokens keeps the names of the roles."""
    model = _MODEL_TURN.search(text)
    start = model.end() if model else 0
    user = _USER_TURN.search(text, start)
    own = text[start : user.start() if user else None]
    return own if own.strip() else text
