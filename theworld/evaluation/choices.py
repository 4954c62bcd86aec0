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
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

CHOICE_SCORER_VERSION = "1"
"""Changes with any rule that can change a verdict; scores of different versions are not comparable."""

LETTERS = "ABCDEFGHIJ"

_DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_NUMBERS = {word: str(number) for number, word in enumerate(_DIGITS)}
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
_DENIED = re.compile(r"\b(?:not|isn't|neither|nor|rather than|instead of)\s+(?:option\s+|choice\s+)?$", re.IGNORECASE)

_YES = r"yes|yeah|yep|true|correct|accurate|affirmative"
_NO = r"no|nope|false|incorrect|inaccurate|untrue|wrong|negative"
_BEFORE_STANCE = r"(?:^|(?<=[.!?:;,\n]))\s*"
_STANCE = re.compile(
    rf"(?P<denied>\b(?:not|isn't|is not|n't|never)\s+(?:\w+\s+)?(?P<what>{_YES}|{_NO})\b)"
    rf"|(?P<no>{_BEFORE_STANCE}(?:no|nope)\b(?=\s*(?:$|[.,!?;:\n-]))|\b(?:false|incorrect|inaccurate|untrue)\b"
    rf"|{_BEFORE_STANCE}(?:wrong|negative)\b|\bis wrong\b)"
    rf"|(?P<yes>{_BEFORE_STANCE}(?:yes|yeah|yep|affirmative)\b|\b(?:true|correct|accurate)\b)"
)


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
    text = _clean(text)
    letters = LETTERS[: len(choices)]
    if (match := _ALONE.fullmatch(text)) and match[1].upper() in letters:
        return match[1].upper()
    texts = [_plain(choice) for choice in choices]
    whole = {letter for letter, choice in zip(letters, texts, strict=True) if choice == _plain(text)}
    if whole:
        return _only(whole)
    if (match := _IN_FRONT.match(text)) and (letter := (match[1] or match[2]).upper()) in letters:
        rest = _plain(text[match.end() :])
        others = {other for other, choice in zip(letters, texts, strict=True) if choice == rest} - {letter}
        others |= _bracketed(text, letters) - {letter} if not _declared(text, letters) else set()
        declared = _declared(text, letters)
        return _only(declared) if declared else (None if others else letter)
    for found in (_declared(text, letters), _bracketed(text, letters), _bare(text, letters)):
        if found:
            return _only(found)
    return _only(_mentioned(_plain(text), dict(zip(letters, texts, strict=True))))


def parse_truth(text: str, statement: str) -> str | None:
    """`yes` or `no`; None where an answer says neither, or both."""
    text = _clean(text).lower().replace("’", "'")
    if text.strip(" .()") in ("1", "0"):
        return "yes" if text.strip(" .()") == "1" else "no"
    if text.strip(" .!") in ("right", "wrong"):
        return "yes" if text.strip(" .!") == "right" else "no"
    found = set()
    for match in _STANCE.finditer(text):
        if match["denied"]:
            found.add("no" if re.fullmatch(_YES, match["what"]) else "yes")
        else:
            found.add("no" if match["no"] is not None else "yes")
    return _only(found) if found else _restated(text, statement)


def _restated(text: str, statement: str) -> str | None:
    """Whether an answer repeats the statement, or repeats it with a `not`."""
    wanted = f" {_plain(statement)} "
    apart = text.replace("n't", " not")
    said = f" {_plain(apart)} "
    if wanted in said:
        return "yes"
    return "no" if " not " in said and wanted in said.replace(" not ", " ") else None


def _clean(text: str) -> str:
    """Without markdown and the name of the role that a decoded chat begins with."""
    text = unicodedata.normalize("NFKC", text)
    return re.sub(r"^model\s*\n", "", re.sub(r"[*`#_$]+|\\boxed", "", text).strip()).strip()


def _plain(text: str) -> str:
    """Lower-case words and numbers, numbers as digits, one space between."""
    words = re.findall(r"\d+(?:\.\d+)?|[^\W\d_]+(?:'[^\W\d_]+)?", _clean(text).lower())
    return " ".join(_NUMBERS.get(word, word) for word in words)


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
    found = {m[1].upper() for m in _BRACKETED.finditer(text) if not _DENIED.search(text[: m.start()])}
    return found & set(letters)


def _bare(text: str, letters: str) -> set[str]:
    found = set()
    for match in _BARE.finditer(text):
        if _DENIED.search(text[: match.start()]) or not _is_letter(text, match.start(), match.end()):
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
    joined = re.match(r"\s+(?:or|and|because|since|as|is|are|was)\b", rest) is not None
    return joined or re.match(r"\s*-?\s*[A-Za-z]", rest) is None


def _mentioned(text: str, choices: dict[str, str]) -> set[str]:
    """Choices whose text stands in the answer, those left out that only stand inside of a longer one."""
    spans = {}
    for letter, choice in choices.items():
        found = [match.span() for match in re.finditer(rf"(?<!\S){re.escape(choice)}(?!\S)", text)] if choice else []
        if found:
            spans[letter] = found

    def is_covered(letter: str, span: tuple[int, int]) -> bool:
        return any(
            other != letter and begin <= span[0] and span[1] <= end and (end - begin) > (span[1] - span[0])
            for other, places in spans.items()
            for begin, end in places
        )

    return {letter for letter, places in spans.items() if not all(is_covered(letter, span) for span in places)}


def _only(found: set[str]) -> str | None:
    return next(iter(found)) if len(found) == 1 else None
