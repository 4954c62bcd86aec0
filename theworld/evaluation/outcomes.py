"""What becomes of an answer that states nothing the question asked for: why there is nothing to score."""

from __future__ import annotations

import re
from typing import Literal, get_args

from theworld.evaluation.asked import Kind
from theworld.evaluation.claims import IGNORANCE
from theworld.evaluation.quantities import PIXELS

Outcome = Literal["correct", "incorrect", "abstained", "refused", "pixels", "unparsed", "empty"]
"""What became of an answer. All but `correct` count as not correct; the last five state nothing to score:

`abstained` owns up to not knowing, `refused` declines the task, `pixels` measures the picture and not the scene,
`empty` has no word or digit, `unparsed` is everything else that cannot be read.
"""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
"""All outcomes, in the order in which they are counted."""

_REFUSAL = re.compile(
    r"\b(?:sorry|apologi[sz]e|regret)\b.{0,80}\b(?:can\s?not|can't|unable|not\s+able|won't|will\s+not)\b"
    r"|\bas\s+an?\s+(?:ai|artificial|(?:large\s+)?language\s+model|assistant)\b"
    r"|\b(?:can\s?not|can't|unable\s+to|not\s+able\s+to|won't|will\s+not|refuse\s+to|must\s+decline|decline\s+to)\s+"
    r"(?:\w+\s+)?(?:help|assist|comply|fulfil+|do\s+that|(?:directly\s+)?(?:see|view|access|open|process|analy[sz]e)\s+(?:the\s+|any\s+)?(?:images?|pictures?|photos?))"
    r"|\bi\s+(?:must\s+)?(?:decline|refuse)\b|\bagainst\s+(?:my|the)\s+(?:guidelines|policy|policies)\b",
    re.DOTALL,
)
_SOMETHING = re.compile(r"\w")
_ABSTENTION = re.compile(r"\b(?:maybe|perhaps|possibly|no\s+idea|not\s+necessarily|yes\s+and\s+no|n/a|neither\s+yes)\b")


def unread(text: str, kind: Kind) -> Outcome:
    """Why a cleaned answer that states nothing to score does so."""
    if not _SOMETHING.search(text):
        return "empty"
    if _REFUSAL.search(text):
        return "refused"
    if kind == "distance" and PIXELS.search(text):
        return "pixels"
    if IGNORANCE.search(text) or _ABSTENTION.search(text):
        return "abstained"
    return "unparsed"
