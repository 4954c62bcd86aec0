"""Free text → statements: the first stage of every answer parser.

A model's answer may carry markdown, LaTeX, the role names and special tokens of a decoded chat, its own reasoning, an
echo of the question, further questions and conditionals. What is left here are the sentences that claim something, in
lower case, with every region as `<n>`.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from theworld.evaluation.claims import CONTRASTS, takes_back, without_concession, without_condition

REGION = re.compile(r"<(\d{1,9})>")
"""A region in cleaned text; a longer number is none, such as of a model that repeats a digit until it is stopped."""

_QUOTES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u2032": "'", "\u201c": '"', "\u201d": '"', "\u2033": '"'})
_DASHES = re.compile(r"[\u2010-\u2015\u2212]")
_FRACTION_AFTER_DIGIT = re.compile(r"(?<=\d)(?=[\u00bc-\u00be\u2150-\u215e])")
_DIGIT_NAMES = {"zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7"}
_REGION_NAME = re.compile(
    rf"regions?[\s:]*(?:number\s*|no\.?\s*|#\s*)?(?:[\[(]?(\d{{1,9}})[\])]?(?!\.?\d)|({'|'.join(_DIGIT_NAMES)})\b)"
)
_BRACKETED = re.compile(r"\[(\d{1,9})\]")
_THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|$)", re.DOTALL)
_ANSWER_TAG = re.compile(r"</?(?:final_?)?answer>")
_TOKEN = re.compile(r"<(?:\|[^|<>\n]*\||/?s|bos|eos|pad|unk|(?:start|end)_of_turn)>")
_LATEX_BOX = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}")
_LATEX_STYLE = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mathit|rm|operatorname)\s*\{([^{}]*)\}")
_LATEX_WORDS = (("\\approx", " about "), ("\\sim", " about "), ("\\times", " x "), ("\\cdot", " x "), ("\\pm", " +- "))
_LATEX_REST = re.compile(r"\\[,;:! ]|\\[()\[\]]|\$")
_USER_TURN = re.compile(r"(?:^|\n)[ \t]*(?:user|human)[ \t]*(?:\n|:(?!\W*(?:about\W+)?\d))")
"""A role of a chat; "human: 1.8 m" lists a size."""
_MODEL_TURN = re.compile(r"(?<!\w[ \t])model[ \t]*\n|(?:^|\n)[ \t]*(?:assistant|model|gpt)[ \t]*(?:\n|:)")
_ABBREVIATION = re.compile(
    r"\.(?:(?=\s*\d)(?:(?<=ft\.)|(?<=in\.)|(?<=yd\.)|(?<=[cm]m\.)|(?<=[\d\s]m\.))"
    r"|(?=\s)(?:(?<=approx\.)|(?<=\bca\.)|(?<=\bvs\.)|(?<=e\.g\.)|(?<=i\.e\.)|(?<=\best\.)))"
)
_PAUSE = re.compile(r"(\d)?\.{2,}(?=\d)")
_END = re.compile(r"(\.(?!\d)|!(?!\d)|\?(?!\w)|\n)")
_CONDITIONS = ("if", "suppose", "assuming", "unless", "whether")
_ANSWER = re.compile(
    r"\banswer\b\s*(?:to\s+(?:\w+\s+)?question\s*)?(?:is|(?:w|sh)ould\s+be|:|=)\s*(?:that\b)?"
    # What is taken back gives way to what follows.
    r"|\bwait\b\s*[,.!:;-]|\bscratch\s+that\b|\bcorrect(?:ion|ed)\s*:|\bon\s+(?:closer|second)\s+\w+|\bno\W+sorry\b"
    r"|\bactually\b[\s,]*(?=(?:yes|no)\b)"
)
_ANSWER_WORDS = ("answer", "wait", "scratch", "correct", "closer", "second", "no, sorry", "actually")
_DECLARED = 8
"""As many declared answers are looked at, the last ones: a model that repeats itself declares thousands."""
_CONCLUDING = r"therefore|thus|hence|so|consequently|in conclusion|overall|in summary"
_CONCLUDING_WORDS = tuple(_CONCLUDING.split("|"))
_CONCLUSION = re.compile(rf"(?:^\W*|[,;:]\s*(?:and\s+)?)(?:{_CONCLUDING})\b")
_ALTERNATIVES = re.compile(r"<(\d+)>\s*or\s*<(\d+)>|\b(?:between|among|of)\s+<\d+>\s*and\s*<\d+>")


class Readings(NamedTuple):
    """The statements of an answer, in the groups in which a reader would believe them.

    Attributes:
        declared: What follows each "the answer is", and each correction ("no, wait"), the last one first.
        concluded: What follows "therefore", "so" and their like.
        everything: All statements.
        text: The cleaned answer that they are of.
    """

    declared: tuple[list[str], ...]
    concluded: list[str]
    everything: list[str]
    text: str


def clean(text: str) -> str:
    """Lower case, plain quotes and dashes, no markdown, only the model's own first turn, regions as `<n>`."""
    if not text.isascii():
        text = _FRACTION_AFTER_DIGIT.sub(" ", text)
        text = unicodedata.normalize("NFKC", text.translate(_QUOTES)).replace("\u2044", "/")
        text = _DASHES.sub("-", text).replace("\u00b1", "+-").replace("\u00d7", "x")
    text = text.lower()
    if ".." in text:
        text = _PAUSE.sub(lambda match: f"{match[1]}-" if match[1] else ". ", text)
    if "\\" in text or "$" in text:
        text = _without_latex(text)
    if "<" in text:
        text = _ANSWER_TAG.sub("\nanswer: ", _TOKEN.sub("\n", _THOUGHT.sub("\n", text)))
    for mark in "*`#_":
        if mark in text:
            text = text.replace(mark, "")
    if "region" in text:
        text = _REGION_NAME.sub(_region, text)
    if "[" in text:
        text = _BRACKETED.sub(_region, text)
    if "\n" in text or ":" in text:
        text = _own_turn(text)
    return _ABBREVIATION.sub("", text) if ". " in text else text


def statements(text: str, *, consequents: bool = False) -> list[str]:
    """The sentences of cleaned text that claim something: no questions, no conditionals, no empty ones.

    Args:
        text: Cleaned text.
        consequents: Keep what follows the condition ("if you are there, *it is at 3*"), which still states a quantity.
    """
    found: list[str] = []
    conditional, contrasted = contains_any(text, _CONDITIONS), contains_any(text, CONTRASTS)
    parts = iter(_END.split(text))  # body, mark, body, mark, …, body
    for body in parts:
        if next(parts, "") == "?":
            continue
        body = body.strip(" \t-")
        if conditional and contains_any(body, _CONDITIONS):
            body = without_condition(body, consequents=consequents)
        if contrasted and contains_any(body, CONTRASTS):
            if found and takes_back(body, found[-1]):
                found.pop()
            body = without_concession(body).strip()
        if body:
            found.append(body)
    return found


def readings(text: str, *, consequents: bool = False) -> Readings:
    """The statements of cleaned text; `consequents` as in `statements`."""
    everything = statements(text, consequents=consequents)
    declared: tuple[list[str], ...] = ()
    if contains_any(text, _ANSWER_WORDS):
        ends = [match.end() for match in _ANSWER.finditer(text)][-_DECLARED:]
        declared = tuple(statements(text[end:], consequents=consequents) for end in reversed(ends))
    concluded: list[str] = []
    if contains_any(text, _CONCLUDING_WORDS):
        concluded = [sentence[match.end() :] for sentence in everything if (match := _CONCLUSION.search(sentence))]
    return Readings(declared, concluded, everything, text)


def contains_any(text: str, words: tuple[str, ...]) -> bool:
    """Whether one of the words occurs, be it inside another: many times faster than the pattern that it saves."""
    for word in words:  # noqa: SIM110 (`any` costs twice as much)
        if word in text:
            return True
    return False


def without_alternatives(sentence: str) -> str:
    """The sentence without an echo such as `<0> or <1>`, which mentions regions and names none."""
    return _ALTERNATIVES.sub(" ", sentence) if " or " in sentence or " and " in sentence else sentence


def regions(text: str) -> list[int]:
    """Region numbers of cleaned text in order of first mention."""
    return list(dict.fromkeys(int(number) for number in REGION.findall(text)))


def _region(match: re.Match[str]) -> str:
    return f"<{match[1] or _DIGIT_NAMES[match[2]]}>"


def _without_latex(text: str) -> str:
    text = _LATEX_STYLE.sub(r" \1", _LATEX_FRACTION.sub(r" \1/\2", text))
    text = _LATEX_BOX.sub(r"\nanswer: \1\n", text)
    for command, word in _LATEX_WORDS:
        text = text.replace(command, word)
    return _LATEX_REST.sub(" ", text)


def _own_turn(text: str) -> str:
    """What the model said in its first turn; a chat decoded without special tokens keeps the names of the roles."""
    model = user = None
    if "model" in text or "assistant" in text or "gpt" in text:
        model = _MODEL_TURN.search(text)
    start = model.end() if model else 0
    if "user" in text or "human" in text:
        user = _USER_TURN.search(text, start)
    own = text[start : user.start() if user else None]
    return own if own.strip() or model is None else text[: model.start()]
