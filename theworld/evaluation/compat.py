"""The quirks of SpatialRGPT-Bench's own script, for those who compare with numbers that it made.

`none` (the default) is exact: a length is right within ±25 % of exact fractions, and its error is |p − g| ÷ g.

`printed` is what the script prints: it compares in floating point, where an answer at the very end of the ±25 % can
fall on either side; errors are |p − g| ÷ g. `score_json` is what it writes to `score.json`: the same successes, but
errors are 100 · |p − g| ÷ (g + 1e-4), in percent. `carried` is `printed`, and a yes/no or choice that states nothing
takes over the verdict of the one before it in the file, as the script's does when a call of its judge fails.

The same in all of them, and in the script: an answer that states nothing to score is a failure, and has no part in the
mean error; directions err in hours around the dial, shown as degrees (30 to an hour). Two quirks have no counterpart
here: a judge that answers differently from run to run, and its `--use-mask` switch, which cannot be turned off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from theworld.evaluation.answers import Score
from theworld.evaluation.asked import asked
from theworld.types import Question

Compat = Literal["none", "printed", "score_json", "carried"]
"""Which quirks are reproduced; the module says what each does."""

_EPSILON = 1e-4


def official(questions: Sequence[Question], scores: Sequence[Score], compat: Compat) -> list[Score]:
    """The scores with the script's quirks, in the order of the file."""
    if compat == "none":
        return list(scores)
    found = []
    verdict = False  # of the yes/no or choice before; the script starts from a failure
    for question, score in zip(questions, scores, strict=True):
        kind = asked(question).kind
        if kind == "distance":
            score = _in_floating_point(score, compat)
        elif kind != "direction":
            if score.parsed:
                verdict = score.correct
            elif compat == "carried" and verdict:
                score = replace(score, outcome="correct")
        found.append(score)
    return found


def _in_floating_point(score: Score, compat: Compat) -> Score:
    truth, prediction = score.ground_truth, score.prediction
    if not (isinstance(truth, float) and isinstance(prediction, float)):
        return score
    right = 0.75 * truth <= prediction <= 1.25 * truth
    error = abs(truth - prediction) / truth if truth else None
    if compat == "score_json":
        error = 100 * abs(truth - prediction) / (truth + _EPSILON)
    return replace(score, outcome="correct" if right else "incorrect", error=error)
