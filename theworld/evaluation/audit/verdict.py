"""What the arms of an audit say: reliance, none within a margin, or that this set does not decide it.

- **Relies**: without the content of a branch fewer answers are right, p by images after Holm below the level.
- **No reliance shown**: the 95 % interval of the difference lies within the margin, and few answers change.
- **Not decided**: everything else, with the reason and what would decide it. A set that is too small to show a
  difference is no evidence that there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log, log10
from typing import Literal

from scipy.stats import norm

from theworld.evaluation.audit.arms import ARMS, FUTURE, REAL, WORLD_ARMS
from theworld.evaluation.audit.comparison import ArmResult

Reliance = Literal["relies", "no reliance shown", "not decided"]

MOST_CHANGED = 0.25
"""Of the answers that could change, the most that may do so where no reliance is shown.

Two answers of yes or no that have nothing to do with one another differ in half of all questions. A model that answers
another question in half of them reads what was exchanged, however many of the answers happen to be right.
"""


_DECIDING = {"world": "shuffled", "image": "image_removed", "future": FUTURE}
_INSTEAD = {"world": "world tokens of another image", "image": "a blank image", "future": "copies of the present frame"}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the arms say.

    Attributes:
        world: Of `shuffled` against `real`.
        image: Of `image_removed` against `real`.
        future: Of `future_is_present` against `real`; None for a model without future frames.
        sentences: The verdicts in words, with their numbers.
    """

    world: Reliance
    image: Reliance
    future: Reliance | None
    sentences: tuple[str, ...]


def judge(results: Sequence[ArmResult], *, level: float, margin: float) -> Verdict:
    """The verdict.

    Whether a model relies on its world tokens is decided by `shuffled` alone, the only arm that keeps everything of
    them but what they say of this picture. Without any world tokens a model may fail because they are part of the
    prompt it was trained with; that is said, and is no reliance.

    Args:
        results: Of all arms.
        level: Of significance, for reliance.
        margin: Largest difference of accuracies, as a share, that passes for none.
    """
    by_arm = {result.arm: result for result in results}
    found = {
        what: reliance(by_arm[arm], level=level, margin=margin) for what, arm in _DECIDING.items() if arm in by_arm
    }
    sentences = [
        _sentence(what, by_arm[REAL], by_arm[_DECIDING[what]], verdict, level=level, margin=margin)
        for what, verdict in found.items()
    ]
    suffering = [arm for arm in WORLD_ARMS if arm != "shuffled" and _is_worse(by_arm[arm], level)]
    if suffering and found["world"] != "relies":
        sentences.append(
            f"Without its world tokens it does worse ({', '.join(suffering)}). That is no reliance on what they show: "
            "they are a part of the prompt it was trained with, whatever is in them."
        )
    return Verdict(world=found["world"], image=found["image"], future=found.get("future"), sentences=tuple(sentences))


def reliance(arm: ArmResult, *, level: float, margin: float) -> Reliance:
    """What one arm says of the branch whose content it takes away."""
    if _is_worse(arm, level):
        return "relies"
    shown = _is_within(arm, margin) and arm.images_changed >= least_images(margin) and not _changes_much(arm)
    return "no reliance shown" if shown and arm.p_holm >= level else "not decided"


def least_images(margin: float) -> int:
    """Fewest images that can show a difference to be within the margin: none of so many differs where one in … does.

    Where a share `margin` of images differs, all of k agree with probability (1 − margin)^k, which must be below 5 %.
    """
    return ceil(log(0.05) / log(1 - margin))


def at_most(images: int) -> float:
    """Upper 95 % bound of a share of images of which none was seen in so many: 1 − 0.05^(1/images)."""
    return 1 - 0.05 ** (1 / images)


def _is_worse(arm: ArmResult, level: float) -> bool:
    return arm.p_holm < level and arm.difference < 0


def _is_within(arm: ArmResult, margin: float) -> bool:
    return -margin < arm.difference_interval.low and arm.difference_interval.high < margin


def _changes_much(arm: ArmResult) -> bool:
    return arm.answers_changed > MOST_CHANGED * arm.inputs_changed


def _sentence(what: str, real: ArmResult, arm: ArmResult, verdict: Reliance, *, level: float, margin: float) -> str:
    start = {
        "relies": f"Relies on {what}",
        "no reliance shown": f"No reliance on {what} shown, within ±{100 * margin:g} points",
        "not decided": f"Not decided whether it relies on {what}",
    }[verdict]
    if not arm.inputs_changed:
        same = "it is the present in every sample"
        return f"{start}: {same if what == 'future' else f'every sample has the same {what} input'}."
    low, high = 100 * arm.difference_interval.low, 100 * arm.difference_interval.high
    numbers = (
        f"{start}: with {_INSTEAD[what]} {100 * arm.accuracy:.1f} % are right instead of {100 * real.accuracy:.1f} % "
        f"(95 % interval of the difference {low:+.1f} to {high:+.1f} points, p by images after Holm {arm.p_holm:.2g}), "
        f"and {_changed(arm)}."
    )
    return numbers if verdict != "not decided" else f"{numbers} {_why(arm, level=level, margin=margin)}"


def _changed(arm: ArmResult) -> str:
    if arm.answers_changed:
        return f"{arm.answers_changed} of {arm.inputs_changed} answers change{'s' if arm.answers_changed == 1 else ''}"
    share = 100 * at_most(arm.images_changed)
    return (
        f"none of {arm.inputs_changed} answers changes (so with 95 % confidence those to at most {share:.1f} % of "
        f"images do, {arm.images_changed} being seen)"
    )


def _why(arm: ArmResult, *, level: float, margin: float) -> str:
    """Why a verdict is open, and what would close it."""
    least = least_images(margin)
    if arm.p_holm < level:
        return "It does better without what was taken away: that misleads it, so it is read, and is no help."
    if arm.images_changed < least:
        return (
            f"{arm.images_changed} images are too few: fewer than {least} cannot show a difference to be within "
            f"±{100 * margin:g} points; audit a larger set."
        )
    half = (arm.difference_interval.high - arm.difference_interval.low) / 2
    if arm.difference_interval.high < 0:
        wanted = _rounded_up(arm.images_changed * max(1.0, _errors_for(level) * half / (1.96 * -arm.difference)) ** 2)
        return (
            f"It does worse, but p is not below {level:g}, as it must be where one of many arms may do so by chance; "
            f"if it is no chance, about {wanted:,} images would show it."
        )
    if _changes_much(arm):
        within = f"within ±{100 * margin:g} points"
        outlook = (
            f"accuracy stays {within}, so that no larger set will"
            if _is_within(arm, margin)
            else f"a larger set may, if accuracy does not stay {within}"
        )
        return (
            f"More than {100 * MOST_CHANGED:g} % of the answers change, so what was exchanged is read. That it helps "
            f"is not shown; {outlook}."
        )
    # An interval of half the margin to each side leaves the other half for a difference that chance makes.
    wanted = _rounded_up(arm.images_changed * max(1.0, 2 * half / margin) ** 2)
    return (
        f"The interval reaches beyond ±{100 * margin:g} points and p is not below {level:g}; if there is no "
        f"difference, about {wanted:,} images would show it."
    )


def _errors_for(level: float) -> float:
    """Standard errors from 0 of a difference that is significant at this level among all arms, in four of five sets."""
    return float(norm.isf(level / 2 / (len(ARMS) - 1)) + norm.isf(0.2))


def _rounded_up(number: float) -> int:
    """To two digits."""
    unit = 10 ** max(0, floor(log10(number)) - 1)
    return ceil(number / unit) * unit
