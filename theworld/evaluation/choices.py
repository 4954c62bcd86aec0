"""Scoring answers to multiple-choice and true/false questions: deterministic, versioned, no model.

An answer is read in this order, and the first that says something decides:

1. **Nothing but the answer**: a letter (`B`, `(B)`, `b)`) or the full text of one choice.
2. **A letter in front of text**: `(B) no`, `B. no`. If the text is that of another choice, the answer contradicts
   itself and is unparsed.
3. **What it declares**: `the answer is B`, `Answer: (B)`, `option B`.
4. **Letters in parentheses** anywhere, then **bare capital letters**, then **the text of a choice** anywhere.

Wherever several choices remain the answer is unparsed: it counts as not correct and is reported apart, never guessed.
`A` and `I` are letters only where they cannot be an article or a pronoun.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from theworld.evaluation.truths import CLAUSE, parse_truth, plain, stances_of, tidy

CHOICE_SCORER_VERSION = "2"
"""Changes with any rule that can change a verdict; scores of different versions are not comparable."""

LETTERS = "ABCDEFGHIJ"

_ARTICLES = "AI"
_ALONE = re.compile(r"[\W_]*([A-Za-z])[\W_]*")
_IN_FRONT = re.compile(r"[(\[]\s*([A-Za-z])\s*[)\]][\s:.,-]*|([A-Za-z])\s*[).:][\s:.,-]+")
_DECLARED = re.compile(
    r"\b(?:answer|option|choice)\b(?:\s+(?:is|would be|should be))?\s*[:=-]?\s*"
    r"(?:(?:option|choice|letter)\s+)?(?:[(\[]\s*([a-z])\s*[)\]]|([a-z])\b)",
    re.IGNORECASE,
)
_ALSO = re.compile(r"\s*(?:,|/|\bor\b|\band\b)\s*[(\[]?\s*([A-J])\b\s*[)\]]?(?!['’])")
_ALSO_ALL = re.compile(rf"(?:{_ALSO.pattern})*")
"""What may follow a declared letter: `A or B`."""
_BRACKETED = re.compile(r"[(\[]\s*([A-Za-z])\s*[)\]]")
_BARE = re.compile(r"(?<![\w'’(\[])([A-Z])(?![\w'’])")
_DENIED = re.compile(
    r"(?:\b(?:not|neither|nor|rather than|instead of)|n't)\s+(?:(?:an?|the|option|choice)\s+)*$", re.IGNORECASE
)
_DENIED_AFTER = re.compile(r"\s+(?:is|are)(?:\s+not|n't)\b")


@dataclass(frozen=True)
class ChoiceOutcome:
    """What became of one answer.

    Attributes:
        correct: Whether it is right; False when it could not be read.
        parsed: Whether it could be read.
        truth: The right letter, or `yes`/`no`.
        prediction: The answer in the same form; None when it could not be read.
    """

    correct: bool
    parsed: bool
    truth: str
    prediction: str | None


def score_letter(prediction: str, *, choices: Sequence[str], truth: str) -> ChoiceOutcome:
    """Scores an answer to a multiple-choice question.

    Args:
        prediction: The model's text.
        choices: In the order of their letters.
        truth: `(B)` or `B`.

    Raises:
        ValueError: The truth is no letter of these choices.
    """
    right = truth.strip().strip("()")
    if len(right) != 1 or right not in LETTERS[: len(choices)]:
        raise ValueError(f"found the truth {truth!r}, expected a letter of {len(choices)} choices; correct the row")
    found = parse_letter(prediction, choices)
    return ChoiceOutcome(correct=found == right, parsed=found is not None, truth=right, prediction=found)


def score_truth(prediction: str, *, statement: str, truth: str) -> ChoiceOutcome:
    """Scores an answer to the question whether a statement is true.

    Args:
        prediction: The model's text.
        statement: What is true or not; an answer may repeat it.
        truth: `Yes.` or `No.`.

    Raises:
        ValueError: The truth is neither.
    """
    right = truth.strip(" .").lower()
    if right not in ("yes", "no"):
        raise ValueError(f"found the truth {truth!r}, expected Yes or No; correct the row")
    found = parse_truth(prediction, statement)
    return ChoiceOutcome(correct=found == right, parsed=found is not None, truth=right, prediction=found)


def parse_letter(text: str, choices: Sequence[str]) -> str | None:
    """The letter an answer chooses; None where it chooses none, or several."""
    text = tidy(text)
    letters = LETTERS[: len(choices)]
    if (match := _ALONE.fullmatch(text)) and match[1].upper() in letters:
        return match[1].upper()
    texts = [plain(tidy(choice)) for choice in choices]
    whole = {letter for letter, choice in zip(letters, texts, strict=True) if choice == plain(text)}
    if whole:
        return _only(whole)
    if (match := _IN_FRONT.match(text)) and (letter := (match[1] or match[2]).upper()) in letters:
        rest = plain(text[match.end() :])
        others = {other for other, choice in zip(letters, texts, strict=True) if choice == rest} - {letter}
        others |= _bracketed(text, letters) - {letter} if not _declared(text, letters) else set()
        declared = _declared(text, letters)
        return _only(declared) if declared else (None if others else letter)
    for found in (_declared(text, letters), _bracketed(text, letters)):
        if found:
            return _only(found)
    bare, named = _bare(text, letters), dict(zip(letters, texts, strict=True))
    if len(bare) == 1:
        return _only(bare)
    # "A is farther, so B is closer" names both letters and one choice.
    return _only(_answered(text, named) if {"yes", "no"} <= set(texts) else _mentioned(plain(text), named))


def _answered(text: str, choices: dict[str, str]) -> set[str]:
    """The choices, among them yes and no, that the answer says: "no" answers only where it stands alone."""
    said = {stance for clause in CLAUSE.split(text.lower()) for stance in stances_of(clause)}
    others = {letter: choice for letter, choice in choices.items() if choice not in ("yes", "no")}
    return {letter for letter, choice in choices.items() if choice in said} | _mentioned(plain(text), others)


def _declared(text: str, letters: str) -> set[str]:
    found = set()
    for match in _DECLARED.finditer(text):
        letter = (match[1] or match[2]).upper()
        is_word = match[2] is not None and not _is_letter(text, match.start(2), match.end(2))
        if letter in letters and not is_word:
            found.add(letter)
            found |= {other.upper() for other in _ALSO.findall(_also(text, match.end()))} & set(letters)
    return found


def _also(text: str, start: int) -> str:
    match = _ALSO_ALL.match(text, start)
    return match[0] if match else ""


def _bracketed(text: str, letters: str) -> set[str]:
    found = {m[1].upper() for m in _BRACKETED.finditer(text) if not _is_denied(text, m.start())}
    return found & set(letters)


def _bare(text: str, letters: str) -> set[str]:
    found = set()
    for match in _BARE.finditer(text):
        denied = _is_denied(text, match.start()) or _DENIED_AFTER.match(text, match.end())
        if denied or not _is_letter(text, match.start(), match.end()):
            continue
        found.add(match[1])
    return found & set(letters)


def _is_letter(text: str, start: int, end: int) -> bool:
    """Whether `A` or `I` is a letter here and no word; a small letter is one only at the end of its sentence."""
    letter, rest = text[start:end], text[end:]
    if letter.islower():
        return re.match(r"\s*(?:$|[.,;:)\n])", rest) is not None
    if letter not in _ARTICLES:
        return True
    joined = re.match(r"\s+(?:or|and|because|since|as|is|are|was|isn't|looks|appears|seems|has)\b", rest) is not None
    return joined or re.match(r"\s*-?\s*[A-Za-z]", rest) is None


def _mentioned(text: str, choices: dict[str, str]) -> set[str]:
    """Choices whose text stands in the answer; not those denied, nor those that only stand inside of a longer one."""
    spans = {}
    for letter, choice in choices.items():
        said = re.finditer(rf"(?<!\S){re.escape(choice)}(?!\S)", text) if choice else ()
        found = [match.span() for match in said if not _is_denied(text, match.start())]
        if found:
            spans[letter] = found

    def is_covered(letter: str, span: tuple[int, int]) -> bool:
        return any(
            other != letter and begin <= span[0] and span[1] <= end and (end - begin) > (span[1] - span[0])
            for other, places in spans.items()
            for begin, end in places
        )

    return {letter for letter, places in spans.items() if not all(is_covered(letter, span) for span in places)}


def _is_denied(text: str, start: int) -> bool:
    return _DENIED.search(text, max(0, start - 40), start) is not None


def _only(found: set[str]) -> str | None:
    return next(iter(found)) if len(found) == 1 else None
