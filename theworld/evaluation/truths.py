"""Whether an answer calls a statement true: yes and no in the places where they answer, true and false anywhere."""

from __future__ import annotations

import re
import unicodedata

_THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|$)", re.DOTALL | re.IGNORECASE)
_ROLE = re.compile(r"^(?:model|assistant)\s*[\n:]")
_MARKS = re.compile(r"[*`#_$]+|\\boxed")
_QUESTION = re.compile(r"[^.!?;\n]*\?")
_NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    )
}

_TRUE = r"true|correct|accurate"
_FALSE = r"false|incorrect|inaccurate|untrue|wrong"
_YES = r"yes|yeah|yep|affirmative"
_NO = r"no|nope|negative"
_WHOLE = {
    "1": "yes",
    "0": "no",
    "right": "yes",
    "wrong": "no",
    "indeed": "yes",
    "certainly": "yes",
    "absolutely": "yes",
}
CLAUSE = re.compile(r"[.!?:;,\n]+|\s-\s|\b(?:but|because|since)\b")
"""What ends a clause, in which one "not" denies one verdict."""
_LEAD = r"(?:(?:so|then|thus|therefore|hence|well|and|oh|hmm|actually|unfortunately)\b\W*)*"
_DECIDES = re.compile(
    rf"(?:^\W*{_LEAD}|\b(?:answer|reply|response|verdict|conclusion)\b(?:\s+to\s+\w+\s+\w+)?\W+(?:(?:is|was|(?:w|sh)ould\s+be|must\s+be)\W+)?"
    rf"|\b(?:say|think|guess|believe|with|towards?)\W+|\bso\W+)"
    rf"(?:(?P<yes>{_YES})\b|(?P<no>{_NO})\b(?=\W*$|\s+(?:it|this|that|they|he|she)\b))"
)
_BOTH = re.compile(r"\b(?:yes|true)\s+(?:and|or|/)\s+(?:no|false)\b|\b(?:no|false)\s+(?:and|or|/)\s+(?:yes|true)\b")
_THINKS_SO = re.compile(r"(?:(?P<no>(?:\bnot|n't)\s+)|\bi\s+)(?:think|believe|suppose)\s+so\b")
_JUDGED = re.compile(rf"\b(?:(?P<yes>{_TRUE})|(?P<no>{_FALSE}))\b(?!\s+(?:side|way|place))")
_DENIAL = re.compile(r"\b(?:not|never|hardly|nothing|cannot|no\s+way|anything\s+but|doubt|far\s+from|neither)\b|n't\b")
_NOT = re.compile(r"n't\b")
_CONDITION = re.compile(r"\W*(?:if|unless|suppose|assuming)\b")
_WOULD, _IF = re.compile(r"\bwould\b"), re.compile(r"\bif\b")


def tidy(text: str) -> str:
    """Without reasoning, markdown, the role that a decoded chat begins with, and questions beside an answer."""
    text = unicodedata.normalize("NFKC", _THOUGHT.sub(" ", text)).replace("\u2019", "'")
    text = _ROLE.sub("", _MARKS.sub("", text).strip()).strip()
    answer = _QUESTION.sub(" ", text).strip(" .!") if "?" in text else ""
    return answer or text


def plain(text: str) -> str:
    """Lower-case words and numbers, numbers as digits, one space between."""
    words = re.findall(r"\d+(?:\.\d+)?|[^\W\d_]+(?:'[^\W\d_]+)?", text.lower())
    return " ".join(_NUMBERS.get(word, word) for word in words)


def parse_truth(text: str, statement: str) -> str | None:
    """`yes` or `no`; None where an answer says neither, or both."""
    text = tidy(text).lower()
    whole = _WHOLE.get(text.strip(" .!()"))
    if whole:
        return whole
    # What the statement itself says is neither yes nor no, and its "not" denies no verdict.
    apart = _unconditional(text.replace(statement.lower().strip(" .!"), "it"))
    stances = {stance for clause in apart for stance in stances_of(clause)}
    if stances:
        return stances.pop() if len(stances) == 1 else None
    return _restated(" ".join(_unconditional(text)), " ".join(CLAUSE.split(statement.lower())))


def stances_of(clause: str) -> set[str]:
    """The yes and no that a clause in lower case holds."""
    if _BOTH.search(clause):
        return {"yes", "no"}
    found = {"no" if match["no"] else "yes" for match in _THINKS_SO.finditer(clause)}
    if match := _DECIDES.search(clause):
        found.add("no" if match["no"] else "yes")
    if match := _JUDGED.search(clause):
        denials = len(_DENIAL.findall(clause, 0, match.start()))
        found.add("yes" if (match["yes"] is not None) == (denials % 2 == 0) else "no")
    return found


def _unconditional(text: str) -> list[str]:
    return [clause for clause in CLAUSE.split(text) if clause.strip() and not _is_conditional(clause)]


def _is_conditional(clause: str) -> bool:
    if _CONDITION.match(clause):
        return True
    would = _WOULD.search(clause)
    return would is not None and _IF.search(clause, would.end()) is not None


def _restated(text: str, statement: str) -> str | None:
    """Whether an answer repeats the statement, or repeats it with a `not`."""
    wanted, said = f" {plain(statement)} ", f" {plain(_NOT.sub(' not', text))} "
    if wanted in said:
        return "yes"
    return "no" if " not " in said and wanted in said.replace(" not ", " ") else None
